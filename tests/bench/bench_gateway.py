"""Figures of the gateway against a bare pyzmq echo, in one run, as ratios.

Run it with `python -m tests.bench.bench_gateway`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import multiprocessing
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import zmq

from mt5crs.broker import process
from mt5crs.broker.interface import BrokerError, TradeRequest
from mt5crs.broker.process import Process
from mt5crs.broker.remote import Deadlines, RemoteBroker, opening_of
from mt5crs.broker.sim.backend import SimulatedBroker
from mt5crs.broker.sim.profile import Profile, Simulator
from mt5crs.broker.sim.store import Changes, Store
from mt5crs.gateway.authenticator import Authenticator
from mt5crs.protocol import requests
from mt5crs.protocol.codec import encode
from mt5crs.protocol.curve import new_keypair, secure_client, secure_server
from mt5crs.protocol.fields import MAX_REPLY_BYTES
from mt5crs.protocol.replies import HaltState, OrderResult, Snapshot
from tests.bench.figures import Table
from tests.unit.gateway import hostile_terminal
from tests.unit.gateway.running import MAGIC, Caller, Running, eventually
from tests.unit.orders import TERMS


def echo(port: int, secret: str, size: int) -> None:
    """A bare ROUTER with CURVE that answers every request with `size` bytes."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    Authenticator(context, lambda *_: "", lambda _: False, lambda *_: None).start()
    router = context.socket(zmq.ROUTER)
    secure_server(router, secret)
    router.setsockopt(zmq.MAXMSGSIZE, MAX_REPLY_BYTES)
    router.bind(f"tcp://127.0.0.1:{port}")
    body = os.urandom(size)
    while True:
        identity, _ = router.recv_multipart()
        router.send_multipart([identity, body])


def measure(call: Callable[[], object], samples: int) -> tuple[float, float]:
    """P50 and P99 in microseconds, after a warm-up."""
    for _ in range(samples // 10 + 1):
        call()
    times = []
    for _ in range(samples):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e6)
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


def take_turns(
    first: Callable[[], object], second: Callable[[], object], samples: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """P50 and P99 in microseconds of two calls, made in turns, so that a busy machine is busy for both."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(samples + samples // 10):
        for call, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            if number >= samples // 10:  # the first tenth warms up
                taken.append((time.perf_counter() - start) * 1e6)
    cuts = [statistics.quantiles(taken, n=100) for taken in times]
    return (cuts[0][49], cuts[0][98]), (cuts[1][49], cuts[1][98])


@contextmanager
def bare_echo(gateway: Running, frame: bytes, size: int) -> Iterator[Callable[[], object]]:
    """A call that makes the same exchange with the bare echo."""
    public, secret = new_keypair()
    port = gateway.legacy_port
    process = multiprocessing.get_context("spawn").Process(
        target=echo, args=(port, secret, size), daemon=True
    )
    process.start()
    socket = gateway.context.socket(zmq.DEALER)
    try:
        secure_client(socket, public, new_keypair()[1])
        socket.connect(f"tcp://127.0.0.1:{port}")
        if not socket.poll(10_000, zmq.POLLOUT):
            raise TimeoutError("the echo did not start")

        def once() -> bytes:
            socket.send(frame)
            return socket.recv()

        yield once
    finally:
        socket.close(0)
        process.kill()
        process.join()


def compare(
    table: Table, name: str, gateway: Running, caller: Caller, request: requests.Request, samples: int
) -> None:
    """Gateway against an echo of the same sizes. Both sides exchange bytes; nobody decodes."""
    frame = encode(request)

    def once() -> bytes:
        caller.socket.send(frame)
        return caller.socket.recv()

    size = len(once())
    with bare_echo(gateway, frame, size) as bare:
        (p50, p99), (e50, e99) = take_turns(once, bare, samples)
    note = f"{size} B; gateway {p50:.0f} and {p99:.0f} us, echo {e50:.0f} and {e99:.0f} us"
    table.add(f"{name} against a bare echo, P50", p50 / e50, "times", 1.5, note)
    table.add(f"{name} against a bare echo, P99", p99 / e99, "times", 2)


def fill(directory: Path, count: int) -> None:
    """Open positions at a broker that is not running yet."""
    broker = SimulatedBroker(directory / "state" / "sim", Profile(balance=1e9), durable=False)
    order = TradeRequest(
        action="DEAL", magic=MAGIC, comment="bench", filling="IOC", symbol="EURUSD", volume=0.01
    )
    broker.send(order)
    (first,) = broker.books().positions
    broker.close()
    store = Store(directory / "state" / "sim" / "broker.db", durable=False)
    numbers = range(first.identifier + 10, first.identifier + 9 + count)
    copies = {n: msgspec.structs.replace(first, identifier=n, ticket=n) for n in numbers}
    store.write(Changes(positions={**copies}), {"next_ticket": float(first.identifier + 20 + count)})
    store.close()


def gateway_with(directory: Path, positions: int, program: str = "mt5crs.gateway") -> Running:
    """A started gateway with so many positions."""
    fill(directory, positions)
    gateway = Running(
        directory, SIM_FAULTS="false", POLL_INTERVAL_S="0.25", HEARTBEAT_INTERVAL_S="1", LOG_LEVEL="ERROR"
    )
    gateway.environment["SIM_BALANCE"] = "1000000000"
    gateway.environment["CLIENT_REQUESTS_PER_S"] = "1000000"
    gateway.limits[str(MAGIC)]["max_position_volume"] = 1e6
    gateway.program = program
    return gateway.start()


def sync_cost(directory: Path, samples: int) -> float:
    """P50 of one journal-like commit (WAL, synchronous FULL) on this disk, in microseconds."""
    db = sqlite3.connect(directory / "sync.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE t (a TEXT)")
    p50, _ = measure(lambda: db.execute("INSERT INTO t VALUES (?)", ("x" * 600,)), samples)
    db.close()
    return p50


def orders(table: Table, gateway: Running, caller: Caller, directory: Path, count: int) -> None:
    """ORDER_SEND with its durable journal."""
    caller.lease()
    numbers = iter(range(10**9))

    def once() -> None:
        result = caller.order(volume=0.01, client_order_id=f"bench-{next(numbers)}")
        if not isinstance(result, OrderResult) or result.outcome != "FILLED":
            raise RuntimeError(f"order failed: {result}")

    p50, p99 = measure(once, count)
    disk = sync_cost(directory, count)
    note = f"P99 {p99:.0f} us; one disk sync {disk:.0f} us, three an order: {300 * disk / p50:.0f} %"
    table.add("ORDER_SEND with durable journal, P50", p50 / 1000, "ms", None, note)
    table.add("ORDER_SEND with durable journal", 1e6 / p50, "per s")


def busy_day(table: Table, gateway: Running, caller: Caller, count: int) -> None:
    """Orders placed and cancelled, none of them filled: the last against the first."""
    times: list[float] = []
    for number in range(count):
        if number % 200 == 0:
            caller.lease()
        began = time.perf_counter()
        placed = caller.order(
            volume=0.01, type="LIMIT", price=0.5, filling="RETURN", client_order_id=f"day-{number}"
        )
        if not isinstance(placed, OrderResult) or placed.outcome != "PLACED":
            raise RuntimeError(f"order failed: {placed}")
        caller.cancel(placed.order, client_order_id=f"day-{number}-end")
        times.append((time.perf_counter() - began) * 1e3)
    first, last = (statistics.median(part) for part in (times[: count // 4], times[-count // 4 :]))
    note = f"{last:.1f} ms for both, {first:.1f} ms in the first quarter; {count} orders, none filled"
    table.add("order placed and cancelled, last quarter of a day's", last / first, "times", 1.3, note)


def questions(head: dict[str, Any]) -> list[bytes]:
    """One request of every kind that changes nothing, and one that nobody understands."""
    asked: list[requests.Request] = [
        requests.Ping(**head),
        requests.Status(**head),
        requests.AccountQuery(**head),
        requests.SymbolQuery(**head, symbol="EURUSD"),
        requests.TickQuery(**head, symbol="EURUSD"),
        requests.OrderCheck(**head, **TERMS),
        requests.OrderQuery(**head, client_order_id="never-sent"),
        requests.HistoryQuery(**head, since_msc=0, limit=100),
        requests.SyncAll(**head, whole_account=False, history_since_msc=None),
    ]
    return [*map(encode, asked), b"\x93\x01\x02"]


def memory(
    table: Table, gateway: Running, caller: Caller, frames: list[bytes], messages: int, rest: float
) -> None:
    """Memory of the gateway while it answers, and its CPU when nobody asks."""
    samples = []
    for _ in range(2):  # the first half warms up
        for _, frame in zip(range(messages // 2), itertools.cycle(frames), strict=False):
            caller.socket.send(frame)
            caller.socket.recv()
        samples.append(gateway.metric("process_resident_memory_bytes") / 1e6)
    table.add("gateway memory at rest", rest, "MB")
    note = f"at {samples[0]:.1f} MB half way; {messages} requests, every kind in turn"
    table.add("gateway memory growth, second half of messages", samples[1] - samples[0], "MB", 1, note)
    time.sleep(1)
    used = gateway.metric("process_cpu_seconds_total")
    time.sleep(10)
    idle = (gateway.metric("process_cpu_seconds_total") - used) / 10 * 100
    table.add("gateway CPU at rest", idle, "%", 1, "over 10 s")


def boundary(table: Table, directory: Path, samples: int) -> None:
    """Two gateways in turns, with a terminal process and with the broker in their own."""
    kinds = {"beside": "mt5crs.gateway", "within": "tests.bench.in_process"}
    with contextlib.ExitStack() as stack:
        callers = []
        for name, program in kinds.items():
            (directory / name).mkdir()
            gateway = gateway_with(directory / name, 100, program)
            stack.callback(gateway.close)
            callers.append(gateway.client("strategy"))
        numbers = itertools.count()
        head: dict[str, Any] = {"v": 1, "id": "bench", "client": "strategy", "magic": MAGIC}
        sync = encode(requests.SyncAll(**head, whole_account=False, history_since_msc=None))
        exchanges: dict[str, tuple[Callable[[Caller], object], int]] = {
            "PING": (lambda caller: exchange(caller, encode(requests.Ping(**head))), samples),
            "SYNC_ALL of 100 positions": (lambda caller: exchange(caller, sync), samples),
            "ORDER_SEND": (lambda caller: ordered(caller, next(numbers)), samples // 4),
        }
        for name, (ask, count) in exchanges.items():
            for caller in callers:
                caller.lease()
            beside, within = (functools.partial(ask, each) for each in callers)
            (p50, _), (e50, _) = take_turns(beside, within, count)
            note = f"{p50:.0f} us, {e50:.0f} us within one process"
            table.add(f"{name} with a terminal process, P50", p50 / e50, "times", 1.1, note)


def exchange(caller: Caller, frame: bytes) -> bytes:
    """One request and its answer, as bytes."""
    caller.socket.send(frame)
    return caller.socket.recv()


def ordered(caller: Caller, number: int) -> None:
    """An order that is filled."""
    result = caller.order(volume=0.01, client_order_id=f"turn-{number}")
    if not isinstance(result, OrderResult) or result.outcome != "FILLED":
        raise RuntimeError(f"order failed: {result}")


def hanging(table: Table, directory: Path, samples: int) -> None:
    """Two gateways in turns, one whose terminal process holds its interpreter's lock, and one at rest."""
    head: dict[str, Any] = {"v": 1, "id": "bench"}
    ping = encode(requests.Ping(**head, client="watcher", magic=MAGIC))
    with contextlib.ExitStack() as stack:
        gateways = []
        for name in ("hangs", "rests"):
            (directory / name).mkdir()
            gateway = Running(
                directory / name,
                TERMINAL_READ_DEADLINE_S="300",
                TERMINAL_ORDER_DEADLINE_S="300",
                CLIENT_REQUESTS_PER_S="1000000",
            )
            gateway.program = hostile_terminal.MODULE
            stack.callback(gateway.close)
            gateways.append(gateway.start())
        trading = gateways[0].client("strategy")
        trading.lease()
        trading.send(requests.OrderSend, **trading.terms(volume=hostile_terminal.HOLDS_THE_LOCK))
        eventually(lambda: gateways[0].health().get("state") == "terminal_hung", 30)
        hung, calm = (functools.partial(exchange, each.client("watcher"), ping) for each in gateways)
        (p50, p99), (e50, e99) = take_turns(hung, calm, samples)
        note = f"P99 {p99 / 1000:.1f} ms, at rest {e99 / 1000:.1f} ms; at most 5 where nothing else runs"
        table.add("PING while the terminal hangs, P50", p50 / e50, "times", 1.1, note)
        stopped, stops = (functools.partial(halted, each.client("ops")) for each in gateways)
        (p50, p99), (e50, e99) = take_turns(stopped, stops, max(20, samples // 10))
        note = f"P99 {p99 / 1000:.1f} ms, at rest {e99 / 1000:.1f} ms; at most 100 where nothing else runs"
        table.add("HALT and RESUME while it hangs, P50", p50 / e50, "times", None, note)
        if gateways[0].health().get("state") != "terminal_hung":
            raise RuntimeError("the terminal came back while it was measured")


def halted(operator: Caller) -> None:
    """A halt of the fleet, durable, and its end."""
    for request in (requests.Halt, requests.Resume):
        reply = operator.ask(request, scope="FLEET", reason="bench")
        if not isinstance(reply, HaltState):
            raise RuntimeError(f"{request.__name__} failed: {reply}")


def terminal_process(table: Table, directory: Path, samples: int) -> None:
    """The boundary alone: a question and its answer, memory, and another process when one was killed."""
    started: list[Process] = []

    def spawn() -> Process:
        started.append(Process(process.command(process.MODULE), process.environment([])))
        return started[-1]

    simulator = Simulator(directory=str(directory / "sim"), profile=Profile())
    broker = RemoteBroker(
        spawn,
        opening_of("sim", str(directory), simulator),
        Deadlines(start_s=30, read_s=10, order_s=10),
    )
    broker.start()
    try:
        p50, p99 = measure(broker.time_msc, samples)
        table.add("question to the terminal process, P50", p50, "us", None, f"P99 {p99:.0f} us")
        if sys.platform.startswith("linux"):
            pages = int(Path(f"/proc/{started[-1].pid}/statm").read_text().split()[1])
            table.add("terminal process memory at rest", pages * os.sysconf("SC_PAGE_SIZE") / 1e6, "MB")
        times = []
        for _ in range(10):
            started[-1].kill()
            with contextlib.suppress(BrokerError):
                broker.books()
            began = time.perf_counter()
            broker.start()
            broker.books()
            times.append(time.perf_counter() - began)
        note = f"worst {max(times):.2f} s"
        table.add("terminal process killed until its books, P50", statistics.median(times), "s", None, note)
    finally:
        broker.close()


def run(table: Table, *, samples: int, messages: int) -> None:
    """All figures of the gateway."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for each in ("small", "large"):
            (directory / each).mkdir()
        gateway = gateway_with(directory / "small", 100)
        try:
            caller = gateway.client("strategy")
            head: dict[str, Any] = {"v": 1, "id": "bench", "client": "strategy", "magic": MAGIC}
            sync = requests.SyncAll(**head, whole_account=False, history_since_msc=None)
            rest = gateway.metric("process_resident_memory_bytes") / 1e6
            compare(table, "PING", gateway, caller, requests.Ping(**head), samples)
            compare(table, "SYNC_ALL of 100 positions", gateway, caller, sync, samples)
            memory(table, gateway, caller, questions(head), messages, rest)
            orders(table, gateway, caller, directory, samples // 2)
            busy_day(table, gateway, caller, 2 * samples)
        finally:
            gateway.close()
        boundary(table, directory, samples)
        hanging(table, directory, samples)
        terminal_process(table, directory / "alone", samples)
        gateway = gateway_with(directory / "large", 10_000)
        try:
            caller = gateway.client("strategy")
            times = []
            for _ in range(30):
                start = time.perf_counter()
                snapshot = caller.sync()
                times.append((time.perf_counter() - start) * 1e3)
                if not isinstance(snapshot, Snapshot) or len(snapshot.positions) != 10_000:
                    raise RuntimeError("snapshot incomplete")
            note = f"worst {max(times):.1f} ms; decoded by the client"
            table.add("SYNC_ALL of 10 000 positions, P50", statistics.median(times), "ms", 60, note)
        finally:
            gateway.close()


def main() -> None:
    """Print the figures of the gateway."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=50_000, help="messages for the memory figure")
    options = parser.parse_args()
    run(Table(), samples=options.samples, messages=options.messages)


if __name__ == "__main__":
    main()
