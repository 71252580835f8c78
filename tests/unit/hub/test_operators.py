"""Who may halt and acknowledge: by name, with a token, a reason, and a line that nobody else reads."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt5crs.hub.posts import ACKNOWLEDGE, HALT, Acknowledged, HaltAsked, NotThereError, Posts
from mt5crs.protocol import requests
from mt5crs.service.endpoint import Answer, Endpoint, Request
from mt5crs.service.metrics import Registry
from mt5crs.service.tls import Tls, TlsError, ends, own_certificate
from tests.unit.gateway.running import MAGIC, Running, eventually
from tests.unit.hub.conftest import Shown
from tests.unit.hub.test_halting import Alerting, halts, started

TOKENS = {"alice": "a" * 64, "bob": "b" * 64}
OPERATORS = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in TOKENS.items()}


class Actions:
    def __init__(self) -> None:
        self.did: list[tuple[str, Any]] = []

    def halt(self, who: str, asked: HaltAsked) -> dict[str, Any]:
        if asked.gateway != "gtw-01":
            raise NotThereError("no such gateway")
        self.did.append((who, asked))
        return {"asked": []}

    def acknowledge(self, who: str, asked: Acknowledged) -> dict[str, Any]:
        self.did.append((who, asked))
        return {}


def posted(path: str, body: object, **of: Any) -> tuple[str, dict[str, Any], Actions]:
    actions = Actions()
    posts = Posts(lambda _: None, "", lambda: None, lambda *_: None, actions, OPERATORS)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = Request(path, "", "10.0.0.1", "POST", sent, **{"token": TOKENS["alice"], "secret": True, **of})
    answer = posts(asked)
    assert answer is not None
    return answer.status[:3], json.loads(answer.body), actions


GOOD = {"gateway": "gtw-01", "magic": "202401", "reason": "because"}


def test_an_operator_halts_and_acknowledges_by_name() -> None:
    status, _, actions = posted(HALT, GOOD)
    assert (status, actions.did) == ("202", [("alice", HaltAsked("gtw-01", "202401", "because"))])
    status, _, actions = posted(ACKNOWLEDGE, {"id": "a-1", "reason": "on it"}, token=TOKENS["bob"])
    assert (status, actions.did) == ("200", [("bob", Acknowledged("a-1", "on it"))])
    assert posted(HALT, GOOD, secret=False, here=True)[0] == "202", "on the Hub itself, as through ssh -L"


@pytest.mark.parametrize(
    ("of", "status", "said"),
    [
        ({"secret": False}, "403", "open the page by https://"),
        ({"token": ""}, "401", "no operator has this token"),
        ({"token": "A" * 64}, "401", "no operator"),
        ({"token": OPERATORS["alice"]}, "401", "no operator"),  # what the inventory has opens nothing
    ],
)
def test_who_is_no_operator_does_nothing(of: dict[str, Any], status: str, said: str) -> None:
    for path, body in ((HALT, GOOD), (ACKNOWLEDGE, {"id": "a-1", "reason": "on it"})):
        found, told, actions = posted(path, body, **of)
        assert (found, actions.did) == (status, [])
        assert said in told["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        ({**GOOD, "reason": "x"}, "length >= 3"),
        ({**GOOD, "reason": "x" * 201}, "length <= 200"),
        ({**GOOD, "magic": 202401}, "Expected `str | null`"),
        ({**GOOD, "magic": "0"}, "matching regex"),
        ({"gateway": "gtw-01", "reason": "because"}, "missing required field `magic`"),
        ({**GOOD, "resume": True}, "unknown field `resume`"),
    ],
)
def test_bad_input_is_one_clear_error(body: object, said: str) -> None:
    status, told, actions = posted(HALT, body)
    assert (status, actions.did) == ("400", [])
    assert said in told["error"]


def test_what_is_not_there_is_said() -> None:
    assert posted(HALT, {**GOOD, "gateway": "gtw-09"})[0] == "404"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return own_certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")


def test_a_certificate_is_made_once_for_its_owner_alone(certificate: tuple[Path, Path]) -> None:
    before = [each.read_bytes() for each in certificate]
    assert own_certificate(certificate[0].parent, "127.0.0.1") == certificate
    assert [each.read_bytes() for each in certificate] == before
    assert certificate[1].stat().st_mode & 0o077 == 0
    assert sorted(each.name for each in certificate[0].parent.iterdir()) == ["tls.crt", "tls.key"]


def test_when_a_certificate_ends_is_read_or_said_to_be_unknown(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    assert 3649 < (ends(certificate[0]) - time.time()) / 86400 < 3651
    (tmp_path / "tls.crt").write_text("nonsense")
    for path in (tmp_path / "tls.crt", tmp_path / "none.crt"):
        with pytest.raises(TlsError, match="is not known"):
            ends(path)


def test_a_certificate_that_cannot_be_made_or_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="openssl made no certificate"):
        own_certificate(tmp_path, "no address")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tls.crt").write_text("nonsense")
    (tmp_path / "tls.key").write_text("nonsense")
    with pytest.raises(TlsError, match="remove both and restart"):
        Tls(tmp_path / "tls.crt", tmp_path / "tls.key")


@pytest.fixture
def endpoint(certificate: tuple[Path, Path]) -> Iterator[Endpoint]:
    def site(request: Request) -> Answer:
        body = json.dumps([request.method, request.secret, request.body.decode()]).encode()
        return Answer("200 OK", "application/json", body + b" " * 300_000)

    made = Endpoint(
        "127.0.0.1", 0, Registry(), lambda: {"healthy": True}, site=site, posts=True, tls=Tls(*certificate)
    )
    yield made
    made.close()


def spoken(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def secret(endpoint: Endpoint, certificate: Path, **versions: Any) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(certificate))
    for name, version in versions.items():
        setattr(context, name, version)
    plain = socket.create_connection(("127.0.0.1", endpoint.port), timeout=5)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_one_port_speaks_both_and_tls_hides_a_long_post(
    endpoint: Endpoint, certificate: tuple[Path, Path], version: ssl.TLSVersion
) -> None:
    body = b"x" * 60_000
    head = b"POST /halt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n"
    with secret(endpoint, certificate[0], minimum_version=version, maximum_version=version) as line:
        answer = spoken(line, head + body)
    method, hidden, got = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (method, hidden, got) == ("POST", True, body.decode())
    assert len(answer) > 300_000
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as line:
        plain = spoken(line, b"GET / HTTP/1.0\r\n\r\n")
    assert json.loads(plain.partition(b"\r\n\r\n")[2]) == ["GET", False, ""]


def test_who_is_slow_or_talks_nonsense_keeps_nobody_waiting(
    endpoint: Endpoint, certificate: tuple[Path, Path]
) -> None:
    slow = [socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) for _ in range(20)]
    for each in slow[:10]:
        each.sendall(b"\x16\x03")  # a handshake that never goes on
    for each in slow[10:]:
        each.sendall(b"\x16" + b"nonsense" * 100)
    with secret(endpoint, certificate[0]) as line:
        assert spoken(line, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    slow[0].settimeout(5)
    assert slow[0].recv(100) == b"", "two seconds, then it has to go"
    for each in slow:
        each.close()


def test_an_old_tls_is_refused(certificate: tuple[Path, Path]) -> None:
    """By our own word: some systems' OpenSSL refuses it anyway, others do not."""
    assert Tls(*certificate)._context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_all_that_is_traded_at_a_gateway_is_halted_and_no_other_is_known(
    gateway: Running, tmp_path: Path
) -> None:
    asked = Alerting()
    hub: Shown = started(gateway, tmp_path, asked, operators=OPERATORS)
    try:
        hub.listening()
        with pytest.raises(NotThereError, match="nothing is traded as gtw-01 9"):
            hub.hub.halt("alice", HaltAsked("gtw-01", "9", "because"))
        with pytest.raises(NotThereError):
            hub.hub.halt("alice", HaltAsked("gtw-02", None, "because"))
        hub.hub.halt("alice", HaltAsked("gtw-01", None, "because"))
        assert eventually(lambda: halts(gateway)) == [(MAGIC, "halter", "alice, on the page: because")]
        with pytest.raises(NotThereError, match="no such alert fires"):
            hub.hub.acknowledge("alice", Acknowledged("nothing", "on it"))
    finally:
        hub.close()
        asked.server.shutdown()
        asked.server.server_close()
        gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="the test is over")
