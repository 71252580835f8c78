"""The second door: plain JSON clients, in the shapes they send and expect."""

import contextlib
import datetime
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from mt5crs.gateway.legacy_format import LegacyError, check_signature
from mt5crs.protocol import requests
from mt5crs.protocol.curve import common_options
from mt5crs.protocol.replies import Error
from tests.unit.gateway.running import MAGIC, Running, eventually


def plain(gateway: Running, kind: int = zmq.REQ) -> "zmq.Socket[bytes]":
    socket = gateway.context.socket(kind)
    common_options(socket)
    return socket


def ask(gateway: Running, message: Any, timeout_ms: int = 5000) -> Any:
    """One question on a fresh REQ socket; None without an answer."""
    socket = plain(gateway)
    try:
        socket.connect(f"tcp://127.0.0.1:{gateway.legacy_port}")
        socket.send(message if isinstance(message, bytes) else json.dumps(message).encode())
        if not socket.poll(timeout_ms):
            return None
        answer = socket.recv()
        return answer if answer.startswith(b"PONG") else json.loads(answer)
    finally:
        socket.close(0)


def door(directory: Path, permissions: list[str], **client: Any) -> Running:
    gateway = Running(directory)
    gateway.environment["LEGACY_PORT"] = str(gateway.legacy_port)
    gateway.environment["LEGACY_PUB_PORT"] = str(gateway.legacy_pub_port)
    gateway.legacy = {
        "old-inf": {"address": "127.0.0.1", "permissions": permissions, "magics": [MAGIC], **client}
    }
    return gateway


@pytest.fixture
def trading(tmp_path: Path) -> Iterator[Running]:
    gateway = door(tmp_path, ["observe", "trade"])
    try:
        yield gateway.start()
    finally:
        gateway.close()


def open_message(age_s: float = 0.0, **changes: Any) -> dict[str, Any]:
    made = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age_s)
    return {
        "uuid": str(uuid.uuid4()),
        "action": "OPEN",
        "symbol": "EURUSD",
        "type": "BUY",
        "volume": 0.1,
        "price": 0.0,
        "sl": 0.0,
        "tp": 0.0,
        "magic": MAGIC,
        "comment": "old",
        "risk_signature": f"RISK_PASS:abc123:{made.isoformat()}",
        "timestamp": 0,
        **changes,
    }


def test_door_is_shut_by_default(gateway: Running) -> None:
    assert ask(gateway, b"PING", 600) is None


def test_unlisted_address_gets_nothing(tmp_path: Path) -> None:
    gateway = door(tmp_path, ["observe"], address="192.0.2.9")
    try:
        gateway.start()
        assert ask(gateway, b"PING", 800) is None
    finally:
        gateway.close()


def test_reading_shapes(trading: Running) -> None:
    assert ask(trading, b"PING:EURUSD:123").startswith(b"PONG:")
    opened = ask(trading, open_message())
    assert opened["status"] == "FILLED"
    synced = ask(trading, {"action": "SYNC_ALL", "magic_number": MAGIC, "timestamp": 1})
    assert synced["status"] == "OK"
    assert set(synced["account"]) == {
        "balance", "equity", "margin_free", "margin_used", "margin_level", "leverage",
    }  # fmt: skip
    (position,) = synced["positions"]
    assert set(position) == {
        "symbol", "ticket", "volume", "profit", "price_current", "price_open", "type", "time_open",
    }  # fmt: skip
    assert position["ticket"] == opened["ticket"]
    ping = ask(trading, {"uuid": "u1", "action": "PING", "timestamp": 1})
    assert (ping["uuid"], ping["status"]) == ("u1", "ok")
    account = ask(trading, {"uuid": "u2", "action": "GET_ACCOUNT"})
    assert {"balance", "equity", "margin", "free_margin", "margin_level", "currency"} <= set(account)
    found = ask(trading, {"uuid": "u3", "action": "GET_POSITIONS", "symbol": "EURUSD"})
    assert [p["ticket"] for p in found["positions"]] == [opened["ticket"]]
    assert ask(trading, {"uuid": "u4", "action": "GET_POSITIONS", "symbol": "XAUUSD"})["positions"] == []
    assert ask(trading, {"command": "PING"})["status"] == "ONLINE"
    assert ask(trading, {"command": "GET_BALANCE"})["code"] == 200
    held = ask(trading, {"command": "GET_POSITION", "symbol": "EURUSD"})
    assert held["position"]["ticket"] == opened["ticket"]


def test_same_uuid_same_answer_and_close(trading: Running) -> None:
    message = open_message()
    first, second = ask(trading, message), ask(trading, message)
    assert first["status"] == second["status"] == "FILLED"
    assert first["ticket"] == second["ticket"]
    assert len(trading.books("positions")) == 1
    closed = ask(trading, {"uuid": "c-1", "action": "CLOSE", "ticket": first["ticket"]})
    assert (closed["status"], closed["ticket"]) == ("FILLED", first["ticket"])
    assert trading.books("positions") == []


def test_trades_get_the_filling_that_the_symbol_offers(trading: Running) -> None:
    """Existing clients name none, and a close has none: XAUUSD takes FOK only."""
    opened = ask(trading, open_message(symbol="XAUUSD", price=0, sl=0, tp=0))
    assert opened["status"] == "FILLED", opened
    closed = ask(trading, {"uuid": "c-1", "action": "CLOSE", "ticket": opened["ticket"]})
    assert closed["status"] == "FILLED", closed
    terms = {"symbol": "XAUUSD", "side": "BUY", "type": "MARKET", "volume": 0.01, "timestamp": "1"}
    assert ask(trading, {"command": "ORDER", "order": terms})["code"] == 200


def test_a_message_repeated_too_late_is_told_what_became_of_it(trading: Running) -> None:
    """A refusal that only the moment explains would call rejected what was executed."""
    message = open_message(age_s=4.0)
    first = ask(trading, message)
    assert first["status"] == "FILLED"
    stale = {**message, "risk_signature": open_message(age_s=60)["risk_signature"]}
    assert ask(trading, stale)["ticket"] == first["ticket"]
    new = trading.client("strategy")
    eventually(lambda: not isinstance(new.ask(requests.LeaseAcquire, instance="n", ttl_ms=60_000), Error), 20)
    for signature in (message["risk_signature"], open_message()["risk_signature"]):
        again = ask(trading, {**message, "risk_signature": signature})
        assert (again["status"], again.get("ticket")) == ("FILLED", first["ticket"])
    assert ask(trading, open_message())["error_code"] == "LEASE_HELD"
    assert len(trading.books("positions")) == 1


@pytest.mark.parametrize(
    ("signature", "good"),
    [
        ("RISK_PASS:abc:2024-01-01T00:00:00Z", True),
        ("RISK_PASS:abc:2024-01-01T00:00:00", True),
        ("RISK_PASS:abc:2024-01-01T02:00:05+02:00", True),
        ("RISK_PASS:abc:2023-12-31T23:59:55+00:00", True),
        ("RISK_PASS:abc:2023-12-31T23:59:54.9+00:00", False),
        ("RISK_PASS:abc:2024-01-01T00:00:05.1+00:00", False),
        ("RISK_PASS::2024-01-01T00:00:00Z", False),
        ("RISK_FAIL:abc:2024-01-01T00:00:00Z", False),
        ("RISK_PASS:abc:yesterday", False),
        ("RISK_PASS", False),
    ],
)
def test_a_risk_signature_is_fresh_for_five_seconds(signature: str, good: bool) -> None:
    now = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc).timestamp()
    with contextlib.nullcontext() if good else pytest.raises(LegacyError, match="risk_signature"):
        check_signature(signature, now)


def test_command_order_repeated_is_one_order(trading: Running) -> None:
    order = {
        "symbol": "EURUSD",
        "side": "BUY",
        "type": "MARKET",
        "volume": 0.1,
        "timestamp": "2024-01-01T00:00:00",
    }
    first, second = (
        ask(trading, {"command": "ORDER", "order": order}),
        ask(trading, {"command": "ORDER", "order": order}),
    )
    assert first["code"] == 200
    assert first == second
    assert len(trading.books("positions")) == 1
    del order["timestamp"]
    assert ask(trading, {"command": "ORDER", "order": order})["code"] == 400


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"volume": -1}, "BAD_FIELD"),
        ({"volume": 100.0}, "LIMIT"),
        ({"symbol": "GBPUSD"}, "LIMIT"),
        ({"magic": 999}, "BAD_FIELD"),
        ({"risk_signature": ""}, "BAD_FIELD"),
        ({"age_s": 60}, "BAD_FIELD"),
    ],
)
def test_bad_orders_are_rejected(trading: Running, changes: dict[str, Any], code: str) -> None:
    answer = ask(trading, open_message(**changes))
    assert answer.get("error_code", "BAD_FIELD") == code
    assert answer["status"] in ("REJECTED", "ERROR")
    assert trading.books("positions") == []


@pytest.mark.parametrize(
    "text", [b"{", b"\xff\xfe", b"[]", b"null", b'{"action": "NOPE"}', b'{"action": "SYNC_ALL"}']
)
def test_nonsense_gets_the_error_shape(trading: Running, text: bytes) -> None:
    answer = ask(trading, text)
    assert (answer["status"], answer["account"], answer["positions"]) == ("ERROR", {}, [])
    assert answer["message"]


def test_lost_reply_is_never_called_rejected(trading: Running) -> None:
    trading.fault({"kind": "lose_request"})
    assert ask(trading, open_message())["status"] == "UNRESOLVED"


def test_sync_fails_in_the_error_shape_when_not_ready(trading: Running) -> None:
    trading.fault(disconnected=True)
    answer = ask(trading, {"action": "SYNC_ALL", "magic_number": MAGIC})
    assert (answer["status"], answer["positions"]) == ("ERROR", [])


def test_read_only_unless_listed_to_trade(tmp_path: Path) -> None:
    gateway = door(tmp_path, ["observe"])
    try:
        gateway.start()
        answer = ask(gateway, open_message())
        assert (answer["status"], answer["error_code"]) == ("REJECTED", "FORBIDDEN")
        assert gateway.books("positions") == []
    finally:
        gateway.close()


def test_old_and_new_program_cannot_both_write(trading: Running) -> None:
    new = trading.client("strategy")
    new.lease()
    answer = ask(trading, open_message())
    assert (answer["status"], answer["error_code"]) == ("REJECTED", "LEASE_HELD")
    new.ask(requests.LeaseRelease, instance="run-1", lease_epoch=new.epoch)
    assert ask(trading, open_message())["status"] == "FILLED"
    held = new.ask(requests.LeaseAcquire, instance="run-1", ttl_ms=1000)
    assert isinstance(held, Error)
    assert held.code == "LEASE_HELD"


def test_halt_stops_the_plain_door_too(trading: Running) -> None:
    trading.client("ops").ask(requests.Halt, scope="FLEET", reason="drill")
    answer = ask(trading, open_message())
    assert (answer["status"], answer["error_code"]) == ("REJECTED", "HALTED")


def test_removed_address_is_shut_out(trading: Running) -> None:
    trading.legacy = {}
    trading.write_clients()
    eventually(lambda: '"revoked":1' in trading.log())
    assert ask(trading, b"PING", 800) is None


def test_quotes_with_the_symbol_as_topic(trading: Running) -> None:
    socket = plain(trading, zmq.SUB)
    socket.connect(f"tcp://127.0.0.1:{trading.legacy_pub_port}")
    socket.subscribe(b"EURUSD")
    assert socket.poll(5000)
    topic, body = socket.recv_multipart()
    assert topic == b"EURUSD"
    assert json.loads(body)["ask"] > json.loads(body)["bid"]
