"""A reconciler pointed at a gateway that speaks only the legacy format: read-only shadow run."""

from __future__ import annotations

import socket
import threading
from typing import Any

import msgspec
import pytest
import zmq

from mt5crs.client.errors import GatewayError, MalformedReplyError
from mt5crs.local_fleet.rehearsal import LOGIN, MAGIC, Fleet, free_ports
from mt5crs.reconciler.legacy import LegacySource, legacy_evidence, parse_snapshot
from mt5crs.reconciler.model import Evidence
from mt5crs.reconciler.source import InconsistentSnapshotError
from mt5crs.settings.reconciler import ReconcilerSettings
from tests.unit.reconciler.books import NOW
from tests.unit.reconciler.trader import Trader

ACCOUNT = {
    "balance": 1.0,
    "equity": 1.0,
    "margin_free": 1.0,
    "margin_used": 0.0,
    "margin_level": 0.0,
    "leverage": 100,
}
POSITION = {
    "symbol": "EURUSD",
    "ticket": 5,
    "volume": 0.1,
    "profit": 0.0,
    "price_current": 1.1,
    "price_open": 1.1,
    "type": "BUY",
    "time_open": 1_700_000_000,
}


def frame(**changes: Any) -> bytes:
    body = {"status": "OK", "account": ACCOUNT, "positions": [POSITION], "message": ""} | changes
    return msgspec.json.encode({key: value for key, value in body.items() if value is not ...})


LEGACY = {"GATEWAY_PROTOCOL": "legacy", "GATEWAY_PUBLIC_KEY": "", "CLIENT_SECRET_KEY": ""}


def test_shadow_run_on_the_legacy_door_of_a_real_gateway(fleet: Fleet) -> None:
    """It shows what the adapter tells, no strategy starts on it, and the live record stays as it was."""
    (port,) = free_ports(1)
    fleet.settings["gateway"]["LEGACY_PORT"] = port
    fleet.clients["legacy"] = {"old": {"address": "127.0.0.1", "permissions": ["observe"], "magics": [MAGIC]}}
    fleet.write_clients()
    fleet.start_ready("gateway")
    held = Trader(fleet).send("BUY", 0.3).position
    live = dict(fleet.settings["reconciler"])
    fleet.start_ready("reconciler")
    fleet.stop("reconciler")

    fleet.settings["reconciler"] |= {**LEGACY, "GATEWAY_PORT": port}
    fleet.start_ready("reconciler")
    state = fleet.state()
    assert state.state == "shadow"
    assert [(p.symbol, p.volume) for p in state.positions or ()] == [("EURUSD", 0.3)]
    fleet.start("strategy")
    fleet.wait(lambda: "shadow" in str(fleet.health("strategy").get("reason")), "the strategy refusing")
    fleet.broker(do="trade", symbol="EURUSD", side="SELL", volume=0.2, magic=MAGIC)
    fleet.broker(do="trade", symbol="EURUSD", side="SELL", volume=0.1, magic=MAGIC + 1)
    fleet.wait(lambda: len(fleet.state().positions or ()) == 2, "the change seen")
    fleet.broker(do="close", position=held)
    fleet.wait(lambda: len(fleet.state().positions or ()) == 1, "the close seen")
    fleet.stop("strategy")
    fleet.stop("reconciler")

    fleet.settings["reconciler"] = live
    fleet.start_ready("reconciler")  # a close that the shadow had booked would now be unexplained
    assert [(p.type, p.volume) for p in fleet.state().positions or ()] == [("SELL", 0.2)]
    with fleet.client() as client:
        ours = [d for d in client.snapshot(MAGIC, history_since_msc=0).deals if d.magic == MAGIC]
    assert len(ours) == 2  # the trader's and the broker's; none of the strategy


def test_no_legacy_gateway_means_halt(fleet: Fleet) -> None:
    fleet.settings["reconciler"] |= LEGACY
    fleet.start("reconciler")
    assert fleet.wait_exit("reconciler") == 1
    assert "no connection to the legacy gateway" in fleet.tail("reconciler")


@pytest.mark.parametrize("key", ["account", "positions"])
def test_a_missing_key_is_an_error_and_not_an_empty_account(key: str) -> None:
    with pytest.raises(MalformedReplyError, match=key):
        parse_snapshot(frame(**{key: ...}))


@pytest.mark.parametrize(
    "bad",
    [
        {"positions": None},
        {"positions": {}},
        {"account": {}},
        {"positions": [{**POSITION, "type": "LONG"}]},
        {"positions": [{**POSITION, "volume": "much"}]},
    ],
)
def test_wrong_types_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(MalformedReplyError):
        parse_snapshot(frame(**bad))


def test_an_error_answer_is_an_error() -> None:
    with pytest.raises(GatewayError, match="terminal is away"):
        parse_snapshot(frame(status="ERROR", message="terminal is away", account={}, positions=[]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (frame()[:-1] + b', "positions": []}', "'positions' comes twice"),
        (frame().replace(b'"volume":0.1', b'"volume":0.1,"volume":9.0'), "'volume' comes twice"),
        (frame().replace(b'"profit":0.0', b'"profit":1e400'), "out of range"),
        (frame().replace(b'"profit":0.0', b'"profit":NaN'), "malformed"),
        (frame().replace(b"EURUSD", b"\\ud800"), "surrogate"),
        (frame(positions=[{**POSITION, "ticket": 0}]), "ticket"),
        (frame(positions=[{**POSITION, "ticket": 2**63}]), "ticket"),
        (frame(positions=[{**POSITION, "volume": -1.0}]), "volume"),
        (frame(positions=[{**POSITION, "time_open": 1e300}]), "time_open"),
        (b"null", "no object"),
        (b"", "truncated"),
    ],
)
def test_what_can_be_read_in_two_ways_or_not_at_all_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(MalformedReplyError, match=why):
        parse_snapshot(text)


def evidence(**changes: Any) -> Evidence:
    return legacy_evidence(parse_snapshot(frame(**changes)), MAGIC, LOGIN, NOW)


def test_a_ticket_twice_is_refused() -> None:
    with pytest.raises(InconsistentSnapshotError, match="ticket twice"):
        evidence(positions=[POSITION, POSITION])


def test_another_account_is_refused() -> None:
    assert evidence(account={**ACCOUNT, "login": LOGIN}).positions
    with pytest.raises(InconsistentSnapshotError, match=f"shows account 7, not {LOGIN}"):
        evidence(account={**ACCOUNT, "login": 7})


def test_no_positions_are_not_believed_while_margin_is_in_use() -> None:
    used = {**ACCOUNT, "margin_used": 12.5}
    with pytest.raises(InconsistentSnapshotError, match=r"margin of 12\.5 is in use"):
        evidence(account=used, positions=[])
    assert evidence(positions=[]).positions == ()
    assert evidence(account=used, positions=[], other_positions=1).positions == ()
    others = evidence(account=used, positions=[{**POSITION, "magic": MAGIC + 1}])
    assert (others.positions, len(others.external)) == ((), 1)


def test_positions_of_other_magic_numbers_are_not_adopted() -> None:
    found = evidence(
        positions=[
            {**POSITION, "ticket": 1, "magic": MAGIC},
            {**POSITION, "ticket": 2, "magic": MAGIC + 1},
            {**POSITION, "ticket": 3, "magic": 0},
            {**POSITION, "ticket": 4, "magic": -1},
        ]
    )
    assert [p.ticket for p in found.positions] == [1]
    assert [p.ticket for p in found.external] == [2, 3, 4]


class OldGateway:
    """A REP socket with answers ready; what it is asked does not matter."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REP)
        self.socket.setsockopt(zmq.IPV6, 1)
        self.answers = list(answers)

    def __enter__(self) -> OldGateway:
        self.thread = threading.Thread(target=self._run, daemon=True)
        return self

    def listen(self, address: str) -> int:
        """Serve at an address; the port."""
        port = self.socket.bind_to_random_port(f"tcp://{address}")
        self.thread.start()
        return port

    def _run(self) -> None:
        for answer in self.answers:
            self.socket.recv()
            self.socket.send_multipart(answer)

    def __exit__(self, *_: object) -> None:
        self.thread.join(5)
        self.socket.close(500)


def source(host: str, port: int) -> LegacySource:
    settings: dict[str, Any] = {
        "gateway_protocol": "legacy",
        "gateway_host": host,
        "gateway_port": port,
        "client_name": "inf",
        "magic_number": MAGIC,
        "expected_account_login": LOGIN,
    }
    return LegacySource(ReconcilerSettings(**settings), lambda _attempt, _error: None)


def test_an_answer_in_several_frames_is_refused() -> None:
    with OldGateway([frame(), frame(positions=[])]) as old:
        asking = source("127.0.0.1", old.listen("127.0.0.1"))
        with pytest.raises(MalformedReplyError, match="2 frames"):
            asking.read(None, attempts=1)


def test_positions_without_magic_are_shown_with_the_doubt() -> None:
    with OldGateway([frame()], [frame(positions=[{**POSITION, "magic": MAGIC}])]) as old:
        asking = source("127.0.0.1", old.listen("127.0.0.1"))
        assert "does not say whose 1 of the positions are" in asking.read(None).doubt
        assert asking.read(None).doubt == ""


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_a_name_with_only_an_ipv6_address_is_reached() -> None:
    """The name is the machine's own for ::1; Debian has it in /etc/hosts."""
    name = "ip6-localhost"
    try:
        families = {found[0] for found in socket.getaddrinfo(name, None)}
    except OSError:
        pytest.skip(f"this machine does not know {name}")
    if families != {socket.AF_INET6}:
        pytest.skip(f"{name} has other addresses as well here")
    with OldGateway([frame()]) as old:
        assert source(name, old.listen("[::1]")).read(None, attempts=1).evidence.positions
