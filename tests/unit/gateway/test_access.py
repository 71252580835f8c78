"""Who gets in and who may do what, through real sockets."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from mt5crs.gateway.access import ClientsFileError, parse
from mt5crs.gateway.authenticator import Authenticator
from mt5crs.protocol import requests
from mt5crs.protocol.codec import decode_event, encode
from mt5crs.protocol.curve import Context, common_options, new_keypair, secure_client
from mt5crs.protocol.events import DealEvent, Heartbeat, OrderEvent, PositionEvent, trade_topic
from mt5crs.protocol.replies import Error, OrderResult, Pong, Snapshot
from tests.unit.gateway.running import (
    LIMITS,
    MAGIC,
    OTHER_MAGIC,
    PASSES_S,
    Caller,
    Running,
    cut,
    eventually,
)


def silent(socket: "zmq.Socket[bytes]", wait_ms: int = 700) -> bool:
    """Whether a request gets no answer."""
    socket.send(b"PING", zmq.NOBLOCK) if socket.poll(wait_ms, zmq.POLLOUT) else None
    return not socket.poll(wait_ms)


def test_14_without_a_key(gateway: Running) -> None:
    socket = gateway.context.socket(zmq.DEALER)
    common_options(socket)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.connect(f"tcp://127.0.0.1:{gateway.port}")
    assert silent(socket)


def test_14_with_an_unlisted_key(gateway: Running) -> None:
    socket = gateway.context.socket(zmq.DEALER)
    secure_client(socket, gateway.public, new_keypair()[1])
    socket.connect(f"tcp://127.0.0.1:{gateway.port}")
    assert silent(socket)
    eventually(lambda: gateway.metric('mt5crs_gateway_refused_total{reason="connection"}') >= 1)


def test_14_with_a_wrong_server_key(gateway: Running) -> None:
    socket = gateway.context.socket(zmq.DEALER)
    secure_client(socket, new_keypair()[0], gateway.secrets["watcher"])
    socket.connect(f"tcp://127.0.0.1:{gateway.port}")
    assert silent(socket)


def test_14_events_need_a_key_too(gateway: Running) -> None:
    socket = gateway.context.socket(zmq.SUB)
    secure_client(socket, gateway.public, new_keypair()[1])
    socket.connect(f"tcp://127.0.0.1:{gateway.pub_port}")
    socket.subscribe(b"")
    assert not socket.poll(800)


def test_14_revoked_while_connected(gateway: Running) -> None:
    watcher, strategy = gateway.client("watcher"), gateway.client("strategy")
    assert isinstance(watcher.ask(requests.Ping), Pong)
    assert isinstance(strategy.ask(requests.Ping), Pong)
    events = gateway.context.socket(zmq.SUB)
    secure_client(events, gateway.public, gateway.secrets["watcher"])
    events.connect(f"tcp://127.0.0.1:{gateway.pub_port}")
    events.subscribe(b"")
    assert events.poll(60_000)
    with cut(watcher.socket, strategy.socket, events):
        del gateway.clients["watcher"]
        gateway.write_clients()
    assert silent(watcher.socket)
    while events.poll(0):  # what was on its way when the key was revoked
        events.recv_multipart()
    assert not events.poll(500)
    assert isinstance(strategy.ask(requests.Ping), Pong)  # the others come back by themselves


@pytest.mark.skipif(
    not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP; it sees that the file changed"
)
def test_sighup_reloads_and_a_bad_file_changes_nothing(gateway: Running) -> None:
    assert gateway.process is not None
    (gateway.directory / "clients.json").write_text("{")
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: gateway.metric("mt5crs_gateway_clients_file_errors_total") >= 1)
    assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)


def test_a_bad_clients_file_at_the_start_is_a_wrong_configuration(tmp_path: Path) -> None:
    gateway = Running(tmp_path)
    gateway.limits["nobody"] = LIMITS
    gateway.write_clients()
    done = subprocess.run(
        [sys.executable, "-m", "mt5crs.gateway"],
        env={**os.environ, **gateway.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    gateway.close()
    assert done.returncode == 78  # a restart cannot help
    assert "limits key 'nobody' is no magic number" in done.stderr


def test_authenticator_survives_a_callback_that_raises() -> None:
    context: Context = zmq.Context()

    def explode(_: str) -> bool:
        raise RuntimeError("boom")

    def explode_too(_: str, __: str) -> str:
        raise RuntimeError("boom")

    authenticator = Authenticator(context, explode_too, explode, explode_too)
    authenticator.start()
    asker = context.socket(zmq.REQ)
    asker.connect("inproc://zeromq.zap.01")
    try:
        for body in (
            [b"1.0", b"1", b"mt5crs", b"10.0.0.1", b"", b"CURVE", b"k" * 32],
            [b"1.0", b"2"],
            [b"9.9", b"3", b"", b"", b"", b"PLAIN", b"u", b"p"],
        ):
            asker.send_multipart(body)
            assert asker.poll(3000)
            assert asker.recv_multipart()[2] == b"400"
        assert authenticator.alive()
    finally:
        authenticator.stop()
        context.destroy(0)


@pytest.mark.parametrize(
    ("name", "magic", "kind", "fields", "field"),
    [
        ("watcher", MAGIC, requests.LeaseAcquire, {"instance": "i", "ttl_ms": 1000}, "kind"),
        ("watcher", MAGIC, requests.Halt, {"scope": "FLEET", "reason": "because"}, "kind"),
        ("strategy", MAGIC, requests.Halt, {"scope": "FLEET", "reason": "because"}, "kind"),
        ("strategy", OTHER_MAGIC, requests.Halt, {"scope": "MAGIC", "reason": "because"}, "magic"),
        ("strategy", MAGIC, requests.Resume, {"scope": "MAGIC", "reason": "because"}, "kind"),
        ("strategy", MAGIC, requests.Resume, {"scope": "FLEET", "reason": "because"}, "kind"),
        ("watcher", MAGIC, requests.Resume, {"scope": "FLEET", "reason": "because"}, "kind"),
        ("strategy", OTHER_MAGIC, requests.LeaseAcquire, {"instance": "i", "ttl_ms": 1000}, "magic"),
        (
            "strategy",
            OTHER_MAGIC,
            requests.SyncAll,
            {"whole_account": False, "history_since_msc": None},
            "magic",
        ),
        # 0 means every magic number, or those of nobody
        ("strategy", 0, requests.SyncAll, {"whole_account": False, "history_since_msc": 0}, "magic"),
        ("strategy", 0, requests.HistoryQuery, {"since_msc": 0, "limit": 10}, "magic"),
        ("strategy", 0, requests.OrderQuery, {"client_order_id": "x"}, "magic"),
        (
            "strategy",
            MAGIC,
            requests.SyncAll,
            {"whole_account": True, "history_since_msc": 0},
            "whole_account",
        ),
        ("ops", MAGIC, requests.LeaseAcquire, {"instance": "i", "ttl_ms": 1000}, "kind"),
        ("strategy", MAGIC, requests.Ping, {"client": "ops"}, "client"),
        ("halter", MAGIC, requests.Halt, {"scope": "FLEET", "reason": "because"}, "kind"),
        ("halter", OTHER_MAGIC, requests.Halt, {"scope": "MAGIC", "reason": "because"}, "magic"),
        ("halter", MAGIC, requests.Resume, {"scope": "MAGIC", "reason": "because"}, "kind"),
        ("halter", MAGIC, requests.Status, {}, "kind"),
        ("halter", MAGIC, requests.LeaseAcquire, {"instance": "i", "ttl_ms": 1000}, "kind"),
        (
            "halter",
            MAGIC,
            requests.OrderCancel,
            {"client_order_id": "x", "order": 1, "lease_epoch": 1, "valid_ms": 1000},
            "kind",
        ),
        (
            "halter",
            MAGIC,
            requests.SyncAll,
            {"whole_account": False, "history_since_msc": None},
            "kind",
        ),
    ],
)
def test_permissions(
    gateway: Running, name: str, magic: int, kind: Any, fields: dict[str, Any], field: str
) -> None:
    reply = gateway.client(name, magic).ask(kind, **fields)
    assert isinstance(reply, Error)
    assert (reply.code, reply.field) == ("FORBIDDEN", field)


@pytest.mark.parametrize(
    ("name", "topic", "kept"),
    [
        ("strategy", trade_topic(MAGIC), True),
        ("strategy", "heartbeat", True),
        ("strategy", "tick.EURUSD.", True),
        ("strategy", "", False),
        ("strategy", trade_topic(OTHER_MAGIC), False),
        ("strategy", trade_topic(MAGIC)[:-1], False),  # of 2024011 as well
        ("watcher", "", True),
        ("halter", "heartbeat", True),
        ("halter", "account", False),
    ],
)
def test_who_may_not_observe_gets_no_events_of_others(
    gateway: Running, name: str, topic: str, kept: bool
) -> None:
    socket = gateway.context.socket(zmq.SUB)
    secure_client(socket, gateway.public, gateway.secrets[name])
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    ended = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    socket.connect(f"tcp://127.0.0.1:{gateway.pub_port}")
    socket.subscribe(b"heartbeat")
    assert socket.poll(60_000)
    socket.subscribe(topic.encode())
    if kept:
        gateway.client("watcher").ask(requests.Ping)
        assert not ended.poll(300)
    else:
        assert ended.poll(60_000)
        assert gateway.metric('mt5crs_gateway_connections_cut_total{reason="forbidden"}') == 1


def test_a_key_is_accepted_from_its_own_addresses_only(gateway: Running) -> None:
    """Also when the list changes while it is connected: stolen keys are of no use elsewhere."""
    strategy, watcher = gateway.client("strategy"), gateway.client("watcher")
    assert isinstance(strategy.ask(requests.Ping), Pong)
    gateway.clients["strategy"]["addresses"] = ["192.0.2.21", "2001:db8::/64"]
    gateway.clients["watcher"]["addresses"] = ["127.0.0.0/8"]
    gateway.write_clients()
    eventually(lambda: gateway.metric('mt5crs_gateway_refused_total{reason="address"}') >= 1)
    assert "wrong address for the key of strategy" in gateway.log()
    assert silent(strategy.socket)
    assert isinstance(watcher.ask(requests.Ping), Pong)
    with cut(watcher.socket):
        gateway.clients["strategy"]["addresses"] = ["::ffff:127.0.0.1/128", "127.0.0.1"]
        gateway.write_clients()
    assert isinstance(gateway.client("strategy").ask(requests.Ping), Pong)


@pytest.mark.parametrize("address", ["inf-01", "10.0.0.1/8", "10.0.0.256", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    text = {"clients": {"a": {"key": "0" * 64, "permissions": [], "magics": [], "addresses": [address]}}}
    with pytest.raises(ClientsFileError, match="a: in `addresses`"):
        parse(json.dumps({**text, "limits": {}}).encode(), "clients.json")


def test_a_trader_may_halt_its_own_magic_number_but_not_lift_the_halt(
    gateway: Running, trader: Caller
) -> None:
    halted = trader.ask(requests.Halt, scope="MAGIC", reason="my own doubts")
    assert [(halt.magic, halt.client) for halt in halted.halts] == [(MAGIC, "strategy")]
    lifted = trader.ask(requests.Resume, scope="MAGIC", reason="never mind")
    assert (lifted.code, lifted.field) == ("FORBIDDEN", "kind")
    refused = trader.order()
    assert isinstance(refused, Error)
    assert refused.code == "HALTED"


def test_who_may_only_halt_halts_its_magic_numbers_and_a_second_halt_changes_nothing(
    gateway: Running, trader: Caller
) -> None:
    halter = gateway.client("halter")
    assert isinstance(halter.ask(requests.Ping), Pong)
    for reason in ("an alert", "another alert"):
        halted = halter.ask(requests.Halt, scope="MAGIC", reason=reason)
        assert [(halt.magic, halt.client, halt.reason) for halt in halted.halts] == [
            (MAGIC, "halter", "an alert")
        ]
    refused = trader.order()
    assert isinstance(refused, Error)
    assert refused.code == "HALTED"
    assert not isinstance(gateway.client("other", OTHER_MAGIC).lease(), Error)


def test_who_may_halt_has_magic_numbers_to_halt() -> None:
    entry = {"key": "0" * 64, "permissions": ["halt"], "magics": []}
    with pytest.raises(ClientsFileError, match="hub may halt but has no magics"):
        parse(json.dumps({"clients": {"hub": entry}, "limits": {}}).encode(), "clients.json")


def test_watcher_cannot_trade(gateway: Running) -> None:
    reply = gateway.client("watcher").order(lease_epoch=1)
    assert isinstance(reply, Error)
    assert (reply.code, reply.field) == ("FORBIDDEN", "kind")


def test_others_positions_and_orders_are_out_of_reach(gateway: Running, trader: Caller) -> None:
    other = gateway.client("other", OTHER_MAGIC)
    other.lease()
    theirs = other.order()
    assert isinstance(theirs, OrderResult)
    reply = trader.close_position(theirs.position)
    assert isinstance(reply, Error)
    assert (reply.code, reply.field) == ("FORBIDDEN", "position")
    gateway.broker(do="price", symbol="EURUSD", bid=1.1, ask=1.1001)
    pending = other.order(type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(pending, OrderResult)
    reply = trader.cancel(pending.order)
    assert isinstance(reply, Error)
    assert (reply.code, reply.field) == ("FORBIDDEN", "order")
    assert len(gateway.books("positions")) == 1


def test_plain_text_ping_and_req_envelope(gateway: Running) -> None:
    socket = gateway.context.socket(zmq.REQ)
    secure_client(socket, gateway.public, gateway.secrets["watcher"])
    socket.connect(f"tcp://127.0.0.1:{gateway.port}")
    socket.send(b"PING:EURUSD:123")
    assert socket.poll(60_000)
    assert socket.recv().startswith(b"PONG:")


def test_fuzzing_the_wire(gateway: Running, trader: Caller) -> None:
    """Random and mutated frames: a typed error, or silence for what is no message; no crash."""
    chance = random.Random(20240101)  # noqa: S311  (repeatable on purpose)
    good = encode(
        requests.OrderSend(v=1, id="f", client="strategy", magic=MAGIC, **trader.terms(volume=3000.0))
    )
    before = gateway.metric("process_resident_memory_bytes")
    for number in range(3000):
        frame = bytearray(good)
        if number % 3 == 0:
            frame = bytearray(chance.randbytes(chance.randrange(0, 300)))
        else:
            for _ in range(chance.randrange(1, 6)):
                frame[chance.randrange(len(frame))] = chance.randrange(256)
        frames = [bytes(frame)] if number % 7 else [chance.randbytes(3), bytes(frame), b""][: number % 3 + 1]
        assert trader.socket.poll(int(PASSES_S * 1000), zmq.POLLOUT)
        trader.socket.send_multipart(frames)
        while trader.socket.poll(0):
            msgspec.msgpack.decode(trader.socket.recv_multipart()[-1])
    fresh = gateway.client("watcher")
    assert isinstance(fresh.ask(requests.Ping), Pong)
    assert isinstance(fresh.sync(), Snapshot)
    assert gateway.books("positions") == []
    assert gateway.metric("process_resident_memory_bytes") - before < 30e6


def test_oversized_frame_drops_only_that_client(gateway: Running) -> None:
    bad, good = gateway.client("strategy"), gateway.client("watcher")
    assert isinstance(bad.ask(requests.Ping), Pong)
    bad.socket.send(b"\x00" * 200_000)
    assert not bad.socket.poll(300)
    assert isinstance(good.ask(requests.Ping), Pong)
    eventually(lambda: isinstance(gateway.client("strategy").ask(requests.Ping), Pong))


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"volume": 1000.0}, "LIMIT", "max_order_volume"),
        ({"symbol": "GBPUSD"}, "LIMIT", "symbols"),
        ({"symbol": "NOPE"}, "UNKNOWN_SYMBOL", "symbol"),
        ({"type": "LIMIT"}, "BAD_FIELD", "price"),
        ({"price": 0.5, "max_slippage_points": 10}, "LIMIT", "max_slippage_points"),
        ({"lease_epoch": 99}, "FENCED", "lease_epoch"),
    ],
)
def test_bad_input_is_refused_by_field_and_counted(
    gateway: Running, trader: Caller, changes: dict[str, Any], code: str, field: str
) -> None:
    reply = trader.order(**changes)
    assert isinstance(reply, Error)
    assert (reply.code, reply.field) == (code, field)
    assert reply.remedy
    assert gateway.metric(f'mt5crs_gateway_refused_total{{reason="{code}"}}') == 1
    assert gateway.books("positions") == []


def test_events_are_numbered_and_cover_a_trade(gateway: Running, trader: Caller) -> None:
    socket = gateway.context.socket(zmq.SUB)
    secure_client(socket, gateway.public, gateway.secrets["watcher"])
    socket.connect(f"tcp://127.0.0.1:{gateway.pub_port}")
    socket.subscribe(b"heartbeat")
    socket.subscribe(trade_topic(MAGIC).encode())
    assert socket.poll(60_000)
    result = trader.order()
    assert isinstance(result, OrderResult)
    seen: list[Any] = []
    while not any(isinstance(e, Heartbeat) and e.seqs.get(trade_topic(MAGIC), 0) >= result.seq for e in seen):
        assert socket.poll(60_000)
        frame = socket.recv_multipart()[1]
        event = decode_event(frame)
        assert event.stream == result.stream
        seen.append(event)
    trades = [e for e in seen if isinstance(e, (DealEvent, OrderEvent, PositionEvent))]
    assert [e.seq for e in trades] == list(range(1, len(trades) + 1))
    assert {type(e).__name__ for e in trades} == {"DealEvent", "PositionEvent"}
    snapshot = trader.sync()
    assert isinstance(snapshot, Snapshot)
    assert snapshot.seqs[trade_topic(MAGIC)] == trades[-1].seq


def test_a_key_that_is_being_replaced_counts_until_it_is(gateway: Running) -> None:
    old = gateway.secrets["watcher"]
    former = gateway.clients["watcher"]["key"]
    gateway.allow("watcher", ["observe"], [])
    gateway.clients["watcher"]["former_key"] = former
    gateway.serial = 2
    gateway.write_clients()
    eventually(lambda: '"serial":2' in gateway.log())
    callers = [gateway.client("watcher"), gateway.client("watcher", secret=old)]
    assert all(isinstance(caller.ask(requests.Ping), Pong) for caller in callers)
    with cut(*(caller.socket for caller in callers)):
        del gateway.clients["watcher"]["former_key"]
        gateway.serial = 3
        gateway.write_clients()
    assert silent(callers[1].socket)
    assert isinstance(callers[0].ask(requests.Ping), Pong)
    # A list that lets it in again does not count unless it is newer.
    gateway.clients["watcher"]["former_key"] = former
    gateway.serial = 2
    gateway.write_clients()
    eventually(lambda: "version 2 is older than the one in force (3)" in gateway.log())
    assert silent(gateway.client("watcher", secret=old).socket)
    assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)
