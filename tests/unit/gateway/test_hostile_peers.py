"""What peers without a key, and clients with one, can take from a real gateway: bounded, seen, no order lost.

Real sockets, a real process; each attack lasts for a second or two.
"""

import contextlib
import resource
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from mt5crs.protocol import requests
from mt5crs.protocol.codec import encode
from mt5crs.protocol.curve import secure_client
from mt5crs.protocol.fields import MAX_REQUEST_BYTES
from mt5crs.protocol.replies import Error, OrderResult, Pong
from tests.unit.gateway.running import MAGIC, Running, eventually, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors and memory are read from /proc")

_FILES = 256
_MB = 1_000_000


@contextlib.contextmanager
def idle(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing."""
    made = []
    try:
        for _ in range(count):
            each = socket.socket()
            each.setblocking(False)
            made.append(each)
            each.connect_ex(("127.0.0.1", port))
        yield made
    finally:
        for each in made:
            each.close()


def few_files(gateway: Running) -> None:
    """No more descriptors for the gateway than this, as on a host without a LimitNOFILE of its own."""
    assert gateway.process is not None
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (_FILES, _FILES))


def running_still(gateway: Running) -> bool:
    return gateway.process is not None and gateway.process.poll() is None


def test_idle_connections_end_nothing_and_shut_nobody_out(tmp_path: Path) -> None:
    """More of them than the process may have descriptors, on both sockets, without any key."""
    with running(tmp_path, CONNECTIONS_PER_ADDRESS="10000", TERMINAL_TIMEOUT_S="5") as gateway:
        few_files(gateway)
        trader = gateway.client("strategy")
        trader.lease()
        with idle(gateway.port, 300), idle(gateway.pub_port, 100):
            eventually(lambda: gateway.metric('mt5crs_gateway_connections_cut_total{reason="total"}') > 100)
            newcomer = gateway.client("watcher")
            assert isinstance(newcomer.ask(requests.Ping), Pong)
            reply = trader.order(volume=0.01)
            assert isinstance(reply, OrderResult), reply
            assert gateway.health()["healthy"], gateway.health()
            assert gateway.metric("process_open_fds") < _FILES
        assert running_still(gateway)
        assert "connection.cut" in gateway.log()
        assert gateway.log().count("connection.cut") < 30


def test_one_address_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    """The oldest silent one goes; who has spoken stays."""
    with running(tmp_path, CONNECTIONS_PER_ADDRESS="20") as gateway:
        watcher = gateway.client("watcher")
        assert isinstance(watcher.ask(requests.Ping), Pong)
        with idle(gateway.port, 60) as connections:
            assert eventually(lambda: sum(map(_ended, connections)) >= 40)
            eventually(lambda: gateway.metric("mt5crs_gateway_connections_of_one_address") <= 20)
            assert isinstance(watcher.ask(requests.Ping), Pong)
        assert gateway.metric('mt5crs_gateway_connections_cut_total{reason="source"}') >= 40


def _ended(connection: socket.socket) -> bool:
    """Whether the other side has closed it (libzmq's greeting comes first)."""
    try:
        return connection.recv(1000) == b"" or connection.recv(1000) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_without_a_descriptor_left_the_gateway_says_so_and_recovers(tmp_path: Path) -> None:
    """The self-test cannot connect: /health names that, nothing dies, nothing spins."""
    with running(tmp_path) as gateway:
        assert gateway.process is not None
        used = int(gateway.metric("process_open_fds"))
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (used - 2, _FILES))
        spent = gateway.metric("process_cpu_seconds_total")
        eventually(lambda: "Too many open files" in str(gateway.health().get("reason")))
        assert gateway.health()["healthy"] is False
        assert gateway.metric("process_cpu_seconds_total") - spent < 3
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (_FILES, _FILES))
        eventually(lambda: gateway.health().get("healthy"))
        assert running_still(gateway)


def test_a_slow_client_keeps_nobody_from_health(gateway: Running) -> None:
    """Some ask and never finish, one never reads what it asked for."""
    with idle(gateway.metrics_port, 40) as slow:
        for each in slow[:20]:
            eventually(lambda each=each: _sent(each, b"GET /metrics HTT"))
        for each in slow[20:]:
            eventually(lambda each=each: _sent(each, b"GET /metrics HTTP/1.1\r\n\r\n"))
        begin = time.monotonic()
        for _ in range(10):
            assert gateway.health()["healthy"]
        assert time.monotonic() - begin < 1.5
        eventually(lambda: all(map(_ended, slow[:20])))  # they have two seconds


def _sent(connection: socket.socket, what: bytes) -> bool:
    try:
        return connection.send(what) == len(what)
    except BlockingIOError:
        return False


def test_a_message_of_thousands_of_frames_takes_no_memory(gateway: Running) -> None:
    """Half a gigabyte in one message of an observer, none of its frames too large."""
    watcher = gateway.client("watcher")
    assert isinstance(watcher.ask(requests.Ping), Pong)
    before = highest = gateway.metric("process_resident_memory_bytes")
    attacker = gateway.client("watcher").socket
    body = bytes(MAX_REQUEST_BYTES - 100)
    for _ in range(8000):
        attacker.send(zmq.Frame(body), zmq.SNDMORE, copy=False)
    attacker.send(b"")  # only now does it leave

    def cut() -> float:
        nonlocal highest
        highest = max(highest, gateway.metric("process_resident_memory_bytes"))
        return gateway.metric('mt5crs_gateway_connections_cut_total{reason="incomplete"}')

    eventually(cut)
    attacker.close(0)
    assert highest - before < 200 * _MB
    assert isinstance(watcher.ask(requests.Ping), Pong)
    assert '"reason":"incomplete"' in gateway.log()


def subscriber(gateway: Running, name: str) -> "zmq.Socket[bytes]":
    made = gateway.context.socket(zmq.SUB)
    secure_client(made, gateway.public, gateway.secrets[name])
    made.connect(f"tcp://127.0.0.1:{gateway.pub_port}")
    return made


@pytest.mark.parametrize(
    "topics",
    [
        [f"{number:04}".encode() + bytes(60_000) for number in range(200)],
        [b"trade.%d." % number for number in range(5000)],
    ],
    ids=["long", "many"],
)
def test_subscriptions_take_no_memory(gateway: Running, topics: list[bytes]) -> None:
    good = subscriber(gateway, "strategy")
    good.setsockopt(zmq.SUBSCRIBE, b"heartbeat")
    assert good.poll(60_000)
    before = gateway.metric("process_resident_memory_bytes")
    hostile = subscriber(gateway, "watcher")
    for topic in topics:
        hostile.setsockopt(zmq.SUBSCRIBE, topic)
    cut = 'mt5crs_gateway_connections_cut_total{reason="subscriptions"}'
    refused = time.monotonic() + 1.5
    while time.monotonic() < refused and not gateway.metric(cut):
        pass
    assert gateway.metric("process_resident_memory_bytes") - before < 40 * _MB
    while good.poll(0):
        good.recv_multipart()
    assert good.poll(60_000)
    hostile.close(0)
    if len(topics) > 1000:
        assert gateway.metric(cut) >= 1


def test_who_does_not_stop_is_kept_out_for_a_while_and_comes_back(gateway: Running) -> None:
    """Each refusal takes time, and so does each new connection; an operator is never kept out."""
    cut = 'mt5crs_gateway_connections_cut_total{reason="frames"}'
    for name in ("watcher", "ops"):
        before = gateway.metric(cut)
        client = gateway.client(name)
        assert isinstance(client.ask(requests.Ping), Pong)
        client.socket.send_multipart([b"x"] * 5000)
        eventually(lambda before=before: gateway.metric(cut) > before)
        begin = time.monotonic()
        assert isinstance(gateway.client(name).ask(requests.Ping), Pong)
        assert (time.monotonic() - begin > 2) == (name == "watcher")
    assert isinstance(gateway.client("strategy").ask(requests.Ping), Pong)


def flood(gateway: Running, name: str, stop: threading.Event) -> None:
    """SYNC_ALL as fast as it goes, on a connection of its own; answers are read."""
    caller = gateway.client(name)
    ask = encode(
        requests.SyncAll(v=1, id="flood", client=name, magic=MAGIC, whole_account=True, history_since_msc=0)
    )
    with contextlib.suppress(zmq.ZMQError):
        while not stop.is_set():
            if caller.socket.poll(50, zmq.POLLOUT):
                with contextlib.suppress(zmq.Again):
                    caller.socket.send(ask, zmq.NOBLOCK)
            while caller.socket.poll(0):
                caller.socket.recv()
    caller.socket.close(0)


def persistent(send: Callable[[str], OrderResult | Error]) -> OrderResult | Error:
    """Send an order as our clients do: again, with the same id, when the terminal had no time for it.

    It may have none where this machine has not. What no flood of others may bring is a refusal of the client.
    """
    order, reply = uuid.uuid4().hex, None
    for _ in range(10):
        reply = send(order)
        if not isinstance(reply, Error) or (reply.code, reply.field) != ("BUSY", "terminal"):
            return reply
        time.sleep((reply.retry_ms or 0) / 1000)
    assert reply is not None
    return reply


def test_an_observers_flood_starves_no_order_and_no_close(tmp_path: Path) -> None:
    """Four connections with an observer's key; orders, a halt, and an emergency close all the while."""
    with running(tmp_path) as gateway:
        trader, ops = gateway.client("strategy"), gateway.client("ops")
        trader.lease()
        for _ in range(100):
            gateway.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC)
        stop = threading.Event()
        crowd = [
            threading.Thread(target=flood, args=(gateway, "watcher", stop), daemon=True) for _ in range(4)
        ]
        for each in crowd:
            each.start()
        try:
            eventually(lambda: gateway.metric('mt5crs_gateway_requests_total{kind="SYNC_ALL"') > 200)
            replies = [persistent(lambda name: trader.order(client_order_id=name)) for _ in range(20)]
            assert [getattr(each, "code", "ok") for each in replies] == ["ok"] * 20
            begin = time.monotonic()
            halted = ops.ask(requests.Halt, scope="FLEET", reason="an attack", magic=0)
            assert not isinstance(halted, Error), halted
            assert time.monotonic() - begin < 1
            opened = [each.position for each in replies[:5] if isinstance(each, OrderResult)]
            closed = [
                persistent(lambda name, of=each: ops.close_position(of, lease_epoch=1, client_order_id=name))
                for each in opened
            ]
            assert [getattr(each, "outcome", each) for each in closed] == ["FILLED"] * 5
        finally:
            stop.set()
            for each in crowd:
                each.join(10)
        assert gateway.metric('mt5crs_gateway_client_refused_total{client="watcher"') > 0
        assert gateway.metric('mt5crs_gateway_client_refused_total{client="strategy"') == 0
        assert gateway.log().count("\n") < 300
        assert '"log.bounded"' in gateway.log() or gateway.log().count('"event":"refused"') <= 10


def test_the_largest_request_and_a_larger_one_are_answered(gateway: Running) -> None:
    watcher = gateway.client("watcher")
    for size, code in ((MAX_REQUEST_BYTES, "BAD_MESSAGE"), (MAX_REQUEST_BYTES + 1, "TOO_LARGE")):
        reply = watcher.raw([bytes(size)])
        assert isinstance(reply, Error)
        assert reply.code == code


def test_the_instance_of_a_lease_is_told_to_its_holder_and_to_operators(gateway: Running) -> None:
    gateway.client("strategy").lease("secret-run")
    told = {
        name: gateway.client(name, magic=0).ask(requests.Status).leases[0].instance
        for name in ("strategy", "other", "watcher", "ops")
    }
    assert told == {"strategy": "secret-run", "other": "", "watcher": "", "ops": "secret-run"}


def test_nobody_takes_over_anothers_connection_by_its_name(gateway: Running) -> None:
    """Two keys, the same routing id: the first one stays connected."""
    made = []
    for name in ("strategy", "watcher"):
        caller = gateway.client(name)
        caller.socket.disconnect(f"tcp://127.0.0.1:{gateway.port}")
        caller.socket.setsockopt(zmq.ROUTING_ID, b"the-same")
        caller.socket.connect(f"tcp://127.0.0.1:{gateway.port}")
        made.append(caller)
        if name == "strategy":
            assert isinstance(caller.ask(requests.Ping), Pong)
    with pytest.raises(TimeoutError):
        made[1].raw([encode(requests.Ping(v=1, id="x", client="watcher", magic=0))], 0.5)
    assert isinstance(made[0].ask(requests.Ping), Pong)
