"""The boundary to the terminal process, with children that do everything a child must not do."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from mt5crs.broker import terminal, wire
from mt5crs.broker.interface import BrokerError, TooLateError, TradeRequest, TradeResult
from mt5crs.broker.process import environment
from mt5crs.broker.remote import Deadlines, RemoteBroker
from mt5crs.broker.sim.backend import Profile, SimulatedBroker
from mt5crs.protocol.records import Deal, Identity, Tick
from mt5crs.service import sole
from mt5crs.service.elapsed import elapsed_s
from tests.unit.broker.forked import NEVER, Fate, Forked, forked_broker
from tests.unit.gateway.running import eventually

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")

SOON = Deadlines(start_s=5, read_s=0.3, order_s=0.3)


def request(comment: str) -> TradeRequest:
    return TradeRequest(action="DEAL", magic=7, comment=comment, filling="IOC", symbol="EURUSD", volume=0.1)


def executed(directory: Path, comment: str) -> int:
    """How often, as the broker's own file has it."""
    broker = SimulatedBroker(directory / "sim", Profile(), durable=False)
    try:
        return sum(deal.comment == comment for deal in broker.deals(0))
    finally:
        broker.close()


@contextlib.contextmanager
def closing(broker: RemoteBroker) -> Iterator[RemoteBroker]:
    try:
        yield broker
    finally:
        broker.close()


@pytest.mark.parametrize("side", ["reads", "writes"])
def test_killed_at_any_byte_of_an_order_it_is_done_once_or_unknown(tmp_path: Path, side: str) -> None:
    fate = Fate()
    with closing(forked_broker(tmp_path, fate=fate)) as broker:
        broker.start()
        fate.set()
        broker.send(request("whole"))
        spent = dict(zip(("reads", "writes"), (NEVER - left for left in fate.left()), strict=True))
        assert spent["reads"] > 100
        assert spent["writes"] > 50
        told = {"done": 0, "unknown": 0}
        ends = (0, 1, 8, 9, 10, spent[side] - 1, spent[side], spent[side] + 1)
        bytes_ = sorted({*ends, *range(20, spent[side], 20)})
        for byte in bytes_:
            if broker.down():
                broker.start()
            fate.set(**{side: byte})
            result, why = None, ""
            try:
                result = broker.send(request(f"b{byte:04}"))
            except BrokerError as error:
                why = str(error)
            told["done" if result else "unknown"] += 1
            assert result.retcode == 10009 if result else "signal 9" in why
        fate.set()
        if broker.down():
            broker.start()
        done = [deal.comment for deal in broker.deals(0)]
        assert len(done) == len(set(done))  # nothing doubled
        assert told == {"done": 2, "unknown": len(bytes_) - 2}
        # what was only read in part was not executed, what was only answered in part was
        assert ("b0001" in done) == (side == "writes")


def test_what_comes_to_the_terminal_too_late_is_not_sent_and_known_not_to_be(tmp_path: Path) -> None:
    with closing(forked_broker(tmp_path)) as broker:
        broker.start()
        late = msgspec.structs.replace(request("late"), until_s=elapsed_s() - 0.2)
        with pytest.raises(TooLateError, match=r"0\.2 s after"):
            broker.send(late)
        assert not broker.down()
        assert broker.send(msgspec.structs.replace(request("timely"), until_s=elapsed_s() + 5)) is not None
    assert [executed(tmp_path, each) for each in ("late", "timely")] == [0, 1]


class Odd(SimulatedBroker):
    """Raises and shows what the package has been seen to raise and to show."""

    def identity(self) -> Identity:
        raise SystemError("<built-in function account_info> returned a result with an exception set")

    def deals(self, since_msc: int) -> list[Deal]:
        deal = super().deals(since_msc)[0]
        odd: dict[str, Any] = {
            "comment": "cut \ud83d",
            "symbol": "Volatility 75 Index £ and more than thirty-two characters",
            "price": float("nan"),
            "profit": float("inf"),
            "volume": -1.0,
            "magic": -1,
            "ticket": 2**64 - 1,
        }
        return [deal, msgspec.structs.replace(deal, **odd)]

    def closed_orders(self, _: int) -> Any:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    def deals_of_position(self, _: int) -> Any:
        return [msgspec.structs.replace(super().deals(0)[0], entry=cast("Any", "SIDEWAYS"))]

    def send(self, request: TradeRequest) -> TradeResult | None:
        super().send(request)
        raise SystemError("after it was done")


def test_exceptions_and_odd_records_are_errors_of_one_call(tmp_path: Path) -> None:
    opener = lambda _: Odd(tmp_path / "sim", Profile(), durable=False)  # noqa: E731
    with closing(forked_broker(tmp_path, opener=opener)) as broker:
        broker.start()
        with pytest.raises(BrokerError, match=r"identity raised SystemError: .*test_terminal_process.py:\d+"):
            broker.identity()
        with pytest.raises(BrokerError, match="UnicodeDecodeError"):
            broker.closed_orders(0)
        with pytest.raises(BrokerError, match="cannot be read: Invalid enum value 'SIDEWAYS'"):
            broker.deals_of_position(1)
        with pytest.raises(BrokerError, match="after it was done"):
            broker.send(request("x"))
        good, odd = broker.deals(0)
        assert good.comment == "deposit"
        assert (odd.magic, odd.ticket, odd.volume) == (-1, 2**64 - 1, -1.0)
        assert odd.comment == "cut \ufffd"
        assert odd.price != odd.price
        assert not broker.down()


HEADER = struct.Struct("<IIB")
GARBAGE: dict[str, bytes] = {
    "noise": bytes(range(256)) * 4,
    "text": b"Traceback (most recent call last):\n",
    "another number": HEADER.pack(1, 99, 0) + b"\xc0",
    "another status": HEADER.pack(1, 2, 7) + b"\xc0",
    "a length without end": HEADER.pack(2**32 - 1, 2, 0),
    "more than asked for": HEADER.pack(1, 2, 0) + b"\xc0" + b"\xc0" * 100,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_pipe_ends_the_process_not_the_gateway(tmp_path: Path, name: str) -> None:
    def run(pipes: wire.Pipes) -> None:
        pipes.take()
        pipes.put(1, 0, b"\xc0")
        pipes.take()
        os.write(pipes._outgoing, GARBAGE[name])
        pipes.take()

    causes: list[str] = []
    broker = forked_broker(tmp_path, run=run, lost=lambda cause, *_: causes.append(cause))
    with closing(broker), pytest.raises(BrokerError, match="garbage"):
        broker.start()
    assert causes == ["garbage"]


def test_an_answer_that_is_no_record_is_an_error(tmp_path: Path) -> None:
    def run(pipes: wire.Pipes) -> None:
        for body in (b"\xc0", b"\xc0", b"\xc1", b"\xa3abc"):
            number, _, _ = pipes.take()
            pipes.put(number, 0, body)
        pipes.take()

    with closing(forked_broker(tmp_path, run=run)) as broker:
        broker.start()
        for _ in range(2):
            with pytest.raises(BrokerError, match="cannot be read"):
                broker.time_msc()
        assert not broker.down()


def test_a_flood_costs_nothing_and_ends_with_the_next_call(tmp_path: Path) -> None:
    def run(pipes: wire.Pipes) -> None:
        for _ in range(2):
            number, _, _ = pipes.take()
            pipes.put(number, 0, b"\xc0")
        while True:
            os.write(pipes._outgoing, b"flood" * 1000)  # blocks as soon as the pipe is full

    broker = forked_broker(tmp_path, run=run)

    def ask() -> None:
        broker.start()  # whose answer the flood may follow at once
        broker.time_msc()

    with closing(broker), pytest.raises(BrokerError, match="garbage"):
        ask()


def held(seconds: int) -> None:
    """Sleep without releasing the interpreter's lock, as the package does."""
    ctypes.PyDLL(None).sleep(seconds)


class Holding(SimulatedBroker):
    """Executes, and then holds the interpreter's lock."""

    def send(self, request: TradeRequest) -> TradeResult | None:
        result = super().send(request)
        if request.comment == "hold":
            held(60)
        return result


def test_a_call_that_holds_the_interpreter_is_killed_at_its_deadline(tmp_path: Path) -> None:
    opener = lambda _: Holding(tmp_path / "sim", Profile(), durable=False)  # noqa: E731
    lost: list[tuple[str, str]] = []
    broker = forked_broker(
        tmp_path, opener=opener, deadlines=SOON, lost=lambda cause, reason, _: lost.append((cause, reason))
    )
    with closing(broker):
        broker.start()
        time.sleep(0.4)  # longer than a deadline without a call: nothing is killed for that
        assert broker.send(request("quick")) is not None
        began = time.monotonic()
        with pytest.raises(BrokerError, match=r"no answer within 0\.3 s"):
            broker.send(request("hold"))
        assert 0.3 <= time.monotonic() - began < 2
        assert [cause for cause, _ in lost] == ["deadline"]
        with pytest.raises(BrokerError, match="no terminal process"):
            broker.tick("EURUSD")
        before = broker._processes
        broker.start()
        assert broker._processes == before + 1
        assert [deal.comment for deal in broker.deals(0)].count("hold") == 1


def test_the_books_of_another_process_are_never_taken_for_unchanged(tmp_path: Path) -> None:
    """Each process counts the versions of its books from one; an order may lie between them."""
    with closing(forked_broker(tmp_path)) as broker:
        for _ in range(2):  # the first process made the account, which is a change
            broker.start()
            cast("Forked", broker._child).kill()
            with pytest.raises(BrokerError):
                broker.books()
        broker.start()
        first = broker.books()
        assert broker.books().orders is first.orders  # equal lists are the same ones
        broker.send(request("between"))
        cast("Forked", broker._child).kill()
        with pytest.raises(BrokerError):
            broker.books()
        broker.start()
        second = broker.books()
        assert second.version != first.version
        assert len(second.positions) == 1


def test_a_quote_is_asked_for_once_in_one_look(tmp_path: Path) -> None:
    class Counting(SimulatedBroker):
        asked = 0

        def tick(self, name: str) -> Tick | None:
            self.asked += 1
            tick = super().tick(name)
            assert tick is not None
            return msgspec.structs.replace(tick, time_msc=self.asked)

    opener = lambda _: Counting(tmp_path / "sim", Profile(), durable=False)  # noqa: E731
    with closing(forked_broker(tmp_path, opener=opener)) as broker:
        broker.start()

        def number() -> int:
            tick = broker.tick("EURUSD")
            assert tick is not None
            return tick.time_msc

        assert number() == 1
        for clear in (broker.books, broker.identity, lambda: broker.send(request("x"))):
            before = number()
            clear()
            assert number() == before + 1
        last = number()
        eventually(lambda: number() > last)  # not for long


def test_two_children_at_once_are_refused_by_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_LOCK_PATIENCE_S", 0.0)
    first, second = forked_broker(tmp_path), forked_broker(tmp_path)
    with closing(first), closing(second):
        first.start()
        holder = cast("Forked", first._child).pid
        with pytest.raises(BrokerError, match=rf"process {holder} holds .*same STATE_DIR"):
            second.start()
        assert first.books().positions == []
        first.close()
        second.start()


def test_a_child_that_was_killed_lets_go_of_the_lock(tmp_path: Path) -> None:
    with closing(forked_broker(tmp_path)) as broker:
        broker.start()
        cast("Forked", broker._child).kill()
        os.close(sole.take(tmp_path / "terminal.lock", 5.0))


def test_a_terminal_that_was_restarted_is_asked_to_connect_again(tmp_path: Path) -> None:
    """All calls fail until `initialize` is called again: `down` says so, and `start` does."""

    class Restarted(SimulatedBroker):
        connected = True

        def start(self) -> None:
            self.connected = True

        def identity(self) -> Identity:
            if not self.connected:
                raise BrokerError(-10004, "account_info failed: No IPC connection")
            self.connected = False
            return super().identity()

    opener = lambda _: Restarted(tmp_path / "sim", Profile(), durable=False)  # noqa: E731
    with closing(forked_broker(tmp_path, opener=opener)) as broker:
        broker.start()
        broker.identity()
        with pytest.raises(BrokerError, match="No IPC"):
            broker.identity()
        assert "No IPC" in broker.down()
        broker.start()
        assert not broker.down()
        assert broker._processes == 1
        broker.identity()


def test_failed_attempts_are_made_with_new_processes(tmp_path: Path) -> None:
    def run(pipes: wire.Pipes) -> None:
        os._exit(3)

    with closing(forked_broker(tmp_path, run=run)) as broker:
        for attempt in (1, 2):
            with pytest.raises(BrokerError, match="status 3"):
                broker.start()
            assert broker._processes == attempt


_GATEWAY = """
import os, sys
from pathlib import Path
from mt5crs.broker.process import Process, command, environment
from mt5crs.broker import remote
from mt5crs.broker.sim.profile import Profile, Simulator
child = Process(command("tests.unit.broker.stuck_terminal"), environment([]))
simulator = Simulator(directory=sys.argv[1] + "/sim", profile=Profile())
opening = remote.opening_of("sim", sys.argv[1], simulator)
broker = remote.RemoteBroker(lambda: child, opening, remote.Deadlines(start_s=60, read_s=60, order_s=60))
broker.start()
print(child.pid, flush=True)
broker.tick(sys.argv[2])
print("answered", flush=True)
sys.stdin.read()
"""


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("symbol", ["EURUSD", "HOLD"])
def test_no_child_outlives_its_gateway(tmp_path: Path, symbol: str) -> None:
    """Neither one that waits for a question nor one that holds its interpreter's lock; TERM ends none."""
    gateway = subprocess.Popen(
        [sys.executable, "-c", _GATEWAY, str(tmp_path), symbol],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert gateway.stdout is not None
    try:
        child = int(gateway.stdout.readline())
        if symbol == "EURUSD":
            assert gateway.stdout.readline() == "answered\n"
            os.kill(child, signal.SIGTERM)  # the service manager sends it to every process of a unit
            assert not gone(child)
        else:
            eventually((tmp_path / "holding").exists)
        gateway.kill()
        gateway.wait(10)
        eventually(lambda: gone(child))
    finally:
        gateway.kill()
        gateway.communicate(timeout=10)


def test_nothing_secret_is_in_the_environment() -> None:
    environ = {"PATH": "/bin", "MT5_PASSWORD": "p", "NOTIFY_SOCKET": "/run/x", "SystemRoot": "C:\\"}
    assert environment(["MT5_PASSWORD"], environ) == {"PATH": "/bin", "SystemRoot": "C:\\"}
