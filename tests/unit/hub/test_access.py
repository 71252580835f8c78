"""Off its own host the Hub speaks by TLS alone, and keeps who was answered what."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mt5crs.hub.access_log import AccessLog, line
from mt5crs.hub.event_file import EventFile
from mt5crs.probes import health
from mt5crs.service.endpoint import Access, Answer, Endpoint, Request
from mt5crs.service.metrics import Registry
from mt5crs.service.tls import Tls, own_certificate
from mt5crs.settings.hub import HubSettings
from mt5crs.settings.schema import SettingsError, build
from tests.unit.gateway.running import Running, eventually
from tests.unit.hub.conftest import Shown

ELSEWHERE = "127.0.0.2"
"""What connects to 127.0.0.1 from there is of another host, as the end point sees it."""
TOKEN = "5a" * 32


def asked(
    port: int, method: str, path: str, *, tls: bool = False, source: str = ELSEWHERE
) -> tuple[int, Any]:
    """Status, and the whole answer."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = (
        http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=5, source_address=(source, 0), context=trusting
        )
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=5, source_address=(source, 0))
    )
    try:
        body = b'{"gateway": "gtw-01", "magic": null, "reason": "because"}' if method == "POST" else None
        client.request(method, path, body, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = client.getresponse()
        return answer.status, (dict(answer.getheaders()), answer.read().decode())
    finally:
        client.close()


def kept(directory: Path, count: int) -> list[dict[str, Any]]:
    """The lines, once there are so many."""
    path = directory / "access.jsonl"
    return eventually(
        lambda: (
            lines
            if len(lines := [json.loads(each) for each in path.read_text().splitlines()]) >= count
            else None
        )
    )


@pytest.mark.parametrize("path", ["/", "/api/fleet", "/api/trades?last=1", "/metrics", "/health", "/nothing"])
def test_who_comes_without_tls_is_told_the_address_and_nothing_else(hub: Shown, path: str) -> None:
    port = hub.hub.endpoint.port
    status, (headers, body) = asked(port, "GET", path)
    assert (status, headers["Location"]) == (308, f"https://127.0.0.1:{port}{path}")
    assert json.loads(body) == {"error": f"this is read by TLS alone: https://127.0.0.1:{port}/"}
    status, _ = asked(port, "GET", path, tls=True)
    assert status == (404 if path == "/nothing" else 200)
    assert asked(port, "GET", path, source="127.0.0.1")[0] == status, "its own host, by a tunnel say"


@pytest.mark.parametrize("path", ["/api/halt", "/api/alerts/acknowledge", "/api/alerts/webhook", "/"])
def test_what_is_posted_without_tls_is_not_taken(hub: Shown, path: str) -> None:
    status, (headers, body) = asked(hub.hub.endpoint.port, "POST", path)
    assert status == 403
    assert "Location" not in headers, "a token is not asked for a second time"
    assert "read by TLS alone" in body
    assert TOKEN not in body


@pytest.mark.parametrize("target", ["/a\rSet-Cookie: x", "/a\nX: y", "//elsewhere.example/x", "x", "/\xe9"])
def test_where_to_ask_instead_is_always_this_host(hub: Shown, target: str) -> None:
    with socket.create_connection(("127.0.0.1", hub.hub.endpoint.port), 5, (ELSEWHERE, 0)) as line:
        line.sendall(f"GET {target} HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n".encode())
        answer = b""
        while chunk := line.recv(4096):
            answer += chunk
    head = answer.partition(b"\r\n\r\n")[0].decode().splitlines()
    found = [each for each in head if each.startswith("Location: ")]
    assert len(found) == 1
    assert found[0].startswith(f"Location: https://127.0.0.1:{hub.hub.endpoint.port}/")
    assert not [each for each in head if each.startswith(("Set-Cookie", "X:"))]


def test_without_a_certificate_nobody_else_reads(gateway: Running, tmp_path: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("nonsense")
    hub = Shown(gateway, tmp_path)
    try:
        status, (_, body) = asked(hub.hub.endpoint.port, "GET", "/api/fleet")
        assert (status, "no certificate" in body) == (503, True)
        assert "mt5crs_hub_certificate_ends_timestamp_seconds 0" in hub.get("/metrics")[1], (
            "Mt5crsCertificateEnds"
        )
        assert "tls.none" in hub.log.getvalue()
    finally:
        hub.close()


def test_who_is_listed_is_answered_as_before_and_that_is_said(gateway: Running, tmp_path: Path) -> None:
    hub = Shown(gateway, tmp_path, plain_readers=["192.0.2.0/24", "2001:db8::/32", "127.0.0.2"])
    try:
        assert asked(hub.hub.endpoint.port, "GET", "/api/fleet")[0] == 200
        assert asked(hub.hub.endpoint.port, "GET", "/api/fleet", source="127.0.0.3")[0] == 308
        assert "hub_plain_readers" in hub.log.getvalue()
        status, (_, body) = asked(hub.hub.endpoint.port, "POST", "/api/halt")
        assert (status, "a token is not taken" in body) == (403, True)
    finally:
        hub.close()


def test_a_reader_that_is_no_address_is_said() -> None:
    with pytest.raises(SettingsError, match="PLAIN_READERS has 'page'"):
        build(
            HubSettings,
            {
                "gateways": {}, "gateway_ports": {}, "gateway_pub_ports": {}, "gateway_public_keys": {},
                "client_name": "watcher", "client_secret_key": "0a" * 32,
                "halt_on": [], "plain_readers": ["page"],
            },
            heading="x",
            label=lambda each: each.env,
        )  # fmt: skip


def test_the_health_command_from_elsewhere_says_what_is_missing(
    hub: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = hub.hub.endpoint.port

    def connected(address: str, port: int, timeout_s: float) -> socket.socket:
        return socket.create_connection((address, port), timeout_s, (ELSEWHERE, 0))

    monkeypatch.setattr(health, "_connected", connected)
    ran = CliRunner().invoke(health.health, ["hub", "--port", str(port)])
    assert ran.exit_code == 1
    assert f"read by TLS alone: https://127.0.0.1:{port}/" in ran.output


def test_who_was_answered_what_is_kept(hub: Shown, tmp_path: Path) -> None:
    port = hub.hub.endpoint.port
    asked(port, "GET", f"/api/trades?last=1&token={TOKEN}", tls=True)
    asked(port, "GET", "/api/fleet")
    asked(port, "GET", "/api/levels", source="127.0.0.1")
    asked(port, "GET", "/health", source="127.0.0.1")
    asked(port, "GET", "/health", tls=True)
    first, second, third, fourth = kept(tmp_path, 4)
    assert (first["from"], first["method"], first["path"], first["status"]) == (
        ELSEWHERE, "GET", "/api/trades", 400,
    )  # fmt: skip
    assert first["tls"].startswith("TLSv1.")
    assert first["bytes"] > 100
    assert 0 <= first["duration_s"] < 5
    assert abs(datetime.fromisoformat(first["at"][:-1] + "+00:00").timestamp() - time.time()) < 60
    assert (second["tls"], second["status"]) == (None, 308)
    assert (third["from"], third["path"]) == ("127.0.0.1", "/api/levels")
    assert fourth["path"] == "/health", "that of its own host is left out: it comes every few seconds"
    assert TOKEN not in (tmp_path / "access.jsonl").read_text()
    assert (tmp_path / "access.jsonl").stat().st_mode & 0o007 == 0


def test_an_operator_is_kept_by_name_and_a_stranger_by_address(gateway: Running, tmp_path: Path) -> None:
    hub = Shown(gateway, tmp_path, operators={"alice": hashlib.sha256(TOKEN.encode()).hexdigest()})
    try:
        asked(hub.hub.endpoint.port, "POST", "/api/alerts/acknowledge", tls=True)
        (line_of,) = kept(tmp_path, 1)
        assert (line_of["who"], line_of["path"], line_of["status"]) == (
            "alice",
            "/api/alerts/acknowledge",
            400,
        )
        assert TOKEN not in (tmp_path / "access.jsonl").read_text()
    finally:
        hub.close()


def test_a_feed_is_kept_when_it_opens_and_when_it_ends(hub: Shown, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", hub.hub.endpoint.port), 5) as line:
        line.sendall(b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        (opened,) = kept(tmp_path, 1)
        assert (opened["path"], opened["opened"], opened["bytes"]) == ("/api/stream", True, 0)
        line.recv(100)
    ended = kept(tmp_path, 2)[1]
    assert ended["bytes"] > 100
    assert "opened" not in ended


@pytest.fixture
def noted(tmp_path: Path) -> Iterator[tuple[Endpoint, Path]]:
    log = AccessLog(tmp_path, 1024 * 1024, pytest.fail)
    endpoint = Endpoint(
        "127.0.0.1", 0, Registry(), lambda: {"healthy": True}, site=_site, posts=True, accessed=log,
        tls=Tls(*own_certificate(tmp_path, "127.0.0.1")),
    )  # fmt: skip
    yield endpoint, tmp_path
    endpoint.close()
    log.close()


def _site(_request: Request) -> Answer:
    return Answer("200 OK", "text/plain", b"x" * 300_000)


@pytest.mark.parametrize(
    "request_line",
    [
        b'GET /"}\\n{"from":"192.0.2.1","who":"root"} HTTP/1.1',
        b'GET /a\n{"who":"root"} HTTP/1.1',
        b"GET /\x1b[2Jclear\x07\x7f\x9b HTTP/1.1",
        b"GET /\xe2\x80\xae\xff\xfe HTTP/1.1",
        b"GET /" + b"a.b" * 2000 + b" HTTP/1.1",
        b"\x1b]0;title\x07" * 30 + b" / HTTP/1.1",
        b"GET",
        b"",
    ],
)
def test_what_others_write_makes_no_line_and_steers_no_terminal(
    noted: tuple[Endpoint, Path], request_line: bytes
) -> None:
    endpoint, directory = noted
    with socket.create_connection(("127.0.0.1", endpoint.port), 5) as line:
        line.sendall(request_line + b'\r\nHost: x\r\nX: \r\n{"who":"root"}\r\n\r\n')
        while line.recv(65536):
            pass
    (found,) = kept(directory, 1)
    assert found["from"] == "127.0.0.1"
    assert found["who"] is None
    text = (directory / "access.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert text[:-1].isascii()
    assert text[:-1].isprintable()
    assert len(text) < 2000


def access(**told: Any) -> Access:
    values: dict[str, Any] = {
        "peer": "192.0.2.7", "here": False, "tls": "TLSv1.3", "who": "", "method": "GET", "path": "/",
        "status": "200", "size": 1, "took_s": 0.1,
    }  # fmt: skip
    return Access(**{**values, **told})


@pytest.mark.parametrize(
    "path", [f"/{TOKEN}", f"/api/halt/{TOKEN[:30]}", "/whsec_" + "A" * 32, "/x" * 50 + TOKEN]
)
def test_a_token_in_the_path_is_not_kept(path: str) -> None:
    assert TOKEN[:24] not in line(access(path=path), datetime.now(timezone.utc))
    assert "AAAA" not in line(access(path=path), datetime.now(timezone.utc))


def test_the_file_keeps_its_bound(tmp_path: Path) -> None:
    log = AccessLog(tmp_path, 20_000, pytest.fail)
    for number in range(1000):
        log(access(path=f"/{number}"))
    log.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["access.1.jsonl", "access.jsonl"]
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 20_000
    assert json.loads((tmp_path / "access.jsonl").read_text().splitlines()[-1])["path"] == "/999"


def test_a_file_that_cannot_be_written_is_said_and_nobody_is_kept_from_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    log = AccessLog(tmp_path, 1000, said.append)

    def full(_self: EventFile, _lines: list[str]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventFile, "append", full)
    log(access())
    assert said == [f"{tmp_path}/access.jsonl: No space left on device"]


def test_a_file_that_cannot_be_opened_anew_goes_on_later_and_writes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never writes to a descriptor that it has closed: by then that may be somebody's connection."""
    file = EventFile(tmp_path, 40)
    file.append(["x" * 18])
    opened = EventFile._open

    def none_left(_self: EventFile) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(EventFile, "_open", none_left)
    for _ in range(2):
        with pytest.raises(OSError, match="Too many"):
            file.append(["y" * 18])
    monkeypatch.setattr(EventFile, "_open", opened)
    file.append(["z" * 18])
    file.close()
    assert (tmp_path / "events.jsonl").read_text() == "z" * 18 + "\n"
    assert (tmp_path / "events.1.jsonl").read_text() == "x" * 18 + "\n"


def test_the_runbook_is_read_on_the_page_and_only_as_text(gateway: Running, tmp_path: Path) -> None:
    hub = Shown(gateway, tmp_path, runbook_file=str(tmp_path / "runbook.html"))
    try:
        port = hub.hub.endpoint.port
        status, (_, body) = asked(port, "GET", "/runbook", tls=True)
        assert (status, "deploy" in body) == (404, True)
        (tmp_path / "runbook.html").write_text("<p id=mt5crshalted>look here</p>")
        status, (headers, body) = asked(port, "GET", "/runbook", tls=True)
        assert (status, body) == (200, "<p id=mt5crshalted>look here</p>")
        assert "default-src 'none'; style-src 'unsafe-inline'" in headers["Content-Security-Policy"]
        assert "script-src" not in headers["Content-Security-Policy"]
    finally:
        hub.close()
