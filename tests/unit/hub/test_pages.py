"""What the Hub answers: shapes, bad input, hostile text; the page asks nobody else for anything."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from mt5crs.probes.health import health
from mt5crs.service.endpoint import Answer, Endpoint
from mt5crs.service.metrics import Registry
from tests.unit.gateway.running import Running, eventually
from tests.unit.hub.conftest import Shown
from tests.unit.hub.test_store import deal

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e"
PAGE = ("index.html", "page.css", "page.js")


def text_of(name: str) -> str:
    return resources.files("mt5crs.hub").joinpath("page", name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(gateway: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    hub = Shown(gateway, tmp_path_factory.mktemp("hub"))
    try:
        hub.listening()
        yield hub
    finally:
        hub.close()


@pytest.mark.parametrize("name", PAGE)
def test_the_page_has_no_outside_resource(name: str) -> None:
    text = text_of(name).replace("http://www.w3.org/2000/svg", "").replace("^https?:", "")
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]", text) == []
    assert "@import" not in text
    assert "url(" not in text


def test_no_text_becomes_markup() -> None:
    script = text_of("page.js")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert way not in script
    assert "<script>" not in text_of("index.html"), "the policy lets no script in the page itself run"
    assert not re.search(r"\son\w+=|style=", text_of("index.html"))


def test_the_page_is_served_with_a_policy_that_lets_nothing_else_in(shown: Shown) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shown.hub.endpoint.port, timeout=5)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.read().decode())
    connection.close()
    for path in set(named) - {"data:,"}:
        assert shown.get(f"/{path}")[0] == 200, path


def test_a_name_of_somebody_else_is_refused(shown: Shown) -> None:
    assert shown.get("/api/fleet", Host="evil.example:8083")[0] == 421
    for host in ("localhost:8083", "[::1]:8083", "10.0.0.1"):
        assert shown.get("/api/fleet", Host=host)[0] == 200


def test_the_health_command_takes_its_address_from_the_env_file(shown: Shown, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text(f"HTTP_ADDRESS='127.0.0.1'\nHTTP_PORT='{shown.hub.endpoint.port}'\n")
    done = CliRunner().invoke(health, ["hub", "--env-file", str(env)])
    assert (done.exit_code, done.output) == (0, "hub ready\n")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?since=yesterday", "since is 'yesterday', expected milliseconds or a time"),
        ("?since=-5", "expected milliseconds"),
        ("?limit=0", "expected a whole number from 1 to 10000"),
        ("?limit=10001", "expected a whole number"),
        ("?after=1e9", "expected a whole number"),
        ("?limit=²", "expected a whole number"),
        ("?nonsense=1", "nonsense is unknown"),
        ("?limit=1&limit=2", "more than once"),
        ("?last=5&after=1", "give it alone"),
        ("?%", "cannot be read"),
        ("?gateway=" + "x" * 200, "too long"),
    ],
)
def test_a_bad_query_is_one_clear_error(shown: Shown, query: str, said: str) -> None:
    connection = socket.create_connection(("127.0.0.1", shown.hub.endpoint.port), timeout=5)
    connection.sendall(f"GET /api/trades{query} HTTP/1.0\r\n\r\n".encode())
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    connection.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert said in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_gateway_that_is_none_and_pages_that_are_none(shown: Shown) -> None:
    assert shown.get("/api/equity?gateway=other")[0] == 400
    assert shown.get("/api/nothing")[0] == 404
    assert shown.get("/page.css/../../store.py")[0] == 404


def test_trades_are_paged_and_hostile_text_is_only_text(shown: Shown) -> None:
    store = shown.hub._store
    many = [msgspec.structs.replace(deal(10_000 + n, comment=HOSTILE), symbol=HOSTILE) for n in range(7)]
    store.keep_live("gtw-01", "1@x", [], many, [])
    after, pages = 0, []
    while True:
        status, told = shown.get(f"/api/trades?limit=3&after={after}&magic=202401")
        assert status == 200
        pages += told["trades"]
        after = told["next"]
        if not told["more"]:
            break
    assert [trade["ticket"] for trade in pages if trade["account"] == "1@x"] == [
        str(each.ticket) for each in many
    ]
    comment = pages[-1]["comment"]
    assert comment.isprintable(), "nothing steers a terminal, or turns the writing"
    assert comment.startswith("</script><img"), "it is still what was written"
    assert shown.get(f"/api/trades?since={2**53}")[1]["trades"] == []
    assert shown.get("/api/trades?since=2026-01-31T18:00:00Z&gateway=gtw-02")[1]["trades"] == []


def test_the_curve_is_of_the_account(shown: Shown) -> None:
    curve = eventually(lambda: (of := shown.get("/api/equity?gateway=gtw-01&hours=1")[1])["points"] and of)
    assert (curve["known"], curve["currency"], curve["gaps"]) == (True, "USD", [])
    assert curve["points"][0][1] > 0


def test_changes_arrive_within_a_second(shown: Shown) -> None:
    feed = socket.create_connection(("127.0.0.1", shown.hub.endpoint.port), timeout=5)
    feed.sendall(b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    heard = b""
    while b"event: hello" not in heard:
        heard += feed.recv(65536)
    assert b"text/event-stream" in heard
    shown.hub._told("gtw-01", [{"kind": "deal", "gateway": "gtw-01", "deal": {"comment": HOSTILE}}], True)
    began = time.monotonic()
    while b"event: gateway" not in heard or b"event: trade" not in heard:
        heard += feed.recv(65536)
    assert time.monotonic() - began < 1.0
    assert shown.hub.endpoint.readers == 1
    feed.close()
    eventually(lambda: shown.hub.endpoint.readers == 0)


class Monitoring:
    """Something that answers like Prometheus and Alertmanager, or not."""

    def __init__(self) -> None:
        self.broken = False
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = b"<html>" if told.broken else json.dumps(told.answer(self.path)).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.refused = 3
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str) -> Any:
        labels = {"alertname": "Mt5crsGatewaySilent", "host": "gtw-01", "severity": "critical"}
        if path.startswith("/api/v2/"):
            return [{"labels": labels, "status": {"state": "suppressed"}}]
        if path.startswith("/api/v1/alerts"):
            notes = {"summary": HOSTILE, "runbook_url": "javascript:alert(1)"}
            alert = {"labels": labels, "annotations": notes, "state": "firing"}
            return {"data": {"alerts": [{**alert, "activeAt": "2026-01-02T03:04:05Z", "value": "0e+00"}]}}
        if "orders_total" in path:
            labels = {"host": "gtw-01", "magic": "202401", "outcome": "REFUSED"}
            return {"data": {"result": [{"metric": labels, "value": [1, str(self.refused)]}]}}
        if "order_seconds" in path:
            return {"data": {"result": [{"metric": {"host": "inf-01"}, "value": [1, "0.25"]}]}}
        return {"data": {"result": [{"metric": {"host": "gtw-01", "job": "gateway"}, "value": [1, "1"]}]}}


def test_alerts_hosts_and_refusals_come_from_the_monitoring(gateway: Running, tmp_path: Path) -> None:
    asked = Monitoring()
    hub = Shown(
        gateway, tmp_path, prometheus_url=asked.url, alertmanager_url=asked.url, alerts_interval_s=0.2
    )
    try:
        told = eventually(lambda: (of := hub.get("/api/alerts/state")[1])["known"] and of)
        (alert,) = told["alerts"]
        assert {"id", "severity", "state", "since", "count", "value", "host", "runbook_url"} <= set(alert)
        assert (alert["state"], alert["count"], alert["value"], alert["silenced"]) == ("firing", 1, 0.0, True)
        hosts = hub.get("/api/fleet")[1]["hosts"]
        assert hosts["hosts"] == {"gtw-01": {"gateway": True}, "inf-01": {}}
        assert hosts["order_p95_s"] == {"inf-01": 0.25}
        asked.refused = 5
        eventually(lambda: '"by":2.0' in (tmp_path / "events.jsonl").read_text())
        asked.broken = True
        told = eventually(lambda: not (of := hub.get("/api/alerts/state")[1])["known"] and of)
        assert "no usable answer" in told["reason"]
        assert len(told["alerts"]) == 1, "what was known stays, with its age"
        assert hub.get("/api/fleet")[1]["hosts"]["hosts"] == {"gtw-01": None, "inf-01": None}
    finally:
        hub.close()
        asked.server.shutdown()
        asked.server.server_close()
    again = Shown(gateway, tmp_path)
    try:
        assert again.get("/api/alerts/state")[1]["alerts"][0]["count"] == 1, "kept across a restart"
    finally:
        again.close()


def test_a_reader_that_does_not_read_is_let_go_and_keeps_nobody_waiting() -> None:
    def site(request: Any) -> Answer:
        return Answer("200 OK", "text/event-stream", b": hello\n\n", feed=request.path == "/feed")

    endpoint = Endpoint("127.0.0.1", 0, Registry(), lambda: {"healthy": True}, site=site)
    try:
        readers = [socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) for _ in range(17)]
        for reader in readers:
            reader.sendall(b"GET /feed HTTP/1.1\r\n\r\n")
        first = [reader.recv(12) for reader in readers]
        assert sorted(first)[-1] == b"HTTP/1.1 503", "so many may read along"
        assert endpoint.readers == 16
        for _ in range(40):
            endpoint.publish(b"x" * 500_000)
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as other:
                other.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                assert other.recv(12) == b"HTTP/1.1 200"
            assert time.monotonic() - began < 1.0
        eventually(lambda: endpoint.readers == 0)
        for reader in readers:
            reader.close()
    finally:
        endpoint.close()


def test_it_closes_although_its_thread_is_gone_already() -> None:
    endpoint = Endpoint("127.0.0.1", 0, Registry(), lambda: {"healthy": True})

    class Waker:
        def send(self, _: bytes) -> int:
            waker.send(b"p")  # something to tell: the thread sees that it is to end, and closes everything
            endpoint._thread.join(5)
            return waker.send(b"x")

        def close(self) -> None:
            waker.close()

    waker, endpoint._stop_bell = endpoint._stop_bell, Waker()  # type: ignore[assignment]
    endpoint.close()
    assert not endpoint._thread.is_alive()
