"""`python -m mt5crs.broker.terminal GATEWAY_PID`: owns the broker, answers the gateway over a pipe each way.

The MetaTrader5 package never lets go of the interpreter's lock and may take arbitrarily long, raise
anything, or crash; here it stops nobody but itself, and the gateway can kill it at any moment. It ends with
the gateway: when its standard input ends, and on Linux by a signal of the kernel too, which also reaches it
inside of the package.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from mt5crs.protocol.records import Order, Position
from mt5crs.service import sole
from mt5crs.service.elapsed import elapsed_s

from . import wire
from .interface import Books, Broker, BrokerError, TooLateError, TradeRequest, TradeResult
from .wire import Change, Failure, Kind, Opening, Status

_NOT_STARTED: Final = -10003
_FAIL: Final = -1
"""The package's own code for a general failure: here an exception where none should be."""
_LOCK_PATIENCE_S = 5.0
_LONGEST_MESSAGE = 500


def open_broker(opening: Opening) -> Broker:
    """The broker that the gateway asks for. Raises BrokerError, and what the broker raises."""
    if opening.backend == "mt5":
        from .mt5 import Mt5Broker, Terminal

        return Mt5Broker(msgspec.msgpack.decode(opening.configuration, type=Terminal))
    from .sim.backend import SimulatedBroker
    from .sim.profile import Simulator

    simulator = msgspec.msgpack.decode(opening.configuration, type=Simulator)
    return SimulatedBroker(Path(simulator.directory), simulator.profile, allow_faults=simulator.allow_faults)


class Server:
    """Answers questions, one after the other."""

    def __init__(self, opener: Callable[[Opening], Broker] = open_broker) -> None:
        """`opener` makes the broker."""
        self._opener = opener
        self._broker: Broker | None = None
        self._lock = -1
        self._sent: tuple[list[Position] | None, list[Order] | None] = (None, None)

    def serve(self, pipes: wire.Pipes) -> None:
        """Answer until the gateway closes its end. Raises GarbageError."""
        try:
            while True:
                try:
                    number, tag, body = pipes.take()
                except wire.PipeEndedError:
                    return
                status, answer = self._answer(tag, body)
                try:
                    pipes.put(number, status, answer)
                except BrokenPipeError:
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the broker and of the lock."""
        broker, self._broker = self._broker, None
        try:
            if broker is not None:
                broker.close()
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _answer(self, tag: int, body: memoryview) -> tuple[Status, bytes]:
        kind = Kind(tag)
        try:
            return Status.DONE, wire.encode(self._done(kind, wire.question(kind, body)))
        except BrokerError as error:
            failed = Failure(error=type(error).__name__, code=error.code, message=error.message)
        except Exception as error:
            # The package raises SystemError, UnicodeDecodeError and others; what it did is not known.
            name, where = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
            message = (
                f"{kind.name.lower()} raised {name}: {error} ({Path(where.filename).name}:{where.lineno})"
            )
            failed = Failure(error=name, code=_FAIL, message=message[:_LONGEST_MESSAGE])
        return Status.FAILED, wire.encode(failed)

    def _done(self, kind: Kind, argument: Any) -> object:
        if kind is Kind.OPEN:
            self._open(argument)
            return None
        broker = self._broker
        if broker is None:
            raise BrokerError(_FAIL, "the terminal process was asked before it was told which broker")
        if kind is Kind.BOOKS:
            return self._change(broker.books(), whole=argument)
        method, takes_argument = _METHODS[kind]
        return method(broker, argument) if takes_argument else method(broker)

    def _open(self, opening: Opening) -> None:
        if opening.version != wire.VERSION:
            raise BrokerError(
                _FAIL,
                f"gateway and terminal process are of different releases ({opening.version}, {wire.VERSION})"
                "; install the same bundle for both",
            )
        directory = Path(opening.state_dir)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = sole.take(directory / "terminal.lock", _LOCK_PATIENCE_S)
        except sole.HeldError as error:
            raise BrokerError(_NOT_STARTED, str(error)) from error
        self._broker = self._opener(opening)
        gc.freeze()  # what is there now stays

    def _change(self, books: Books, *, whole: bool) -> Change:
        positions, orders = books.positions, books.orders
        before, self._sent = (None, None) if whole else self._sent, (positions, orders)
        return Change(
            time_msc=books.time_msc,
            identity=books.identity,
            account=books.account,
            positions=None if positions == before[0] else positions,
            orders=None if orders == before[1] else orders,
            version=books.version,
            elapsed_s=elapsed_s(),
        )


_METHODS: dict[Kind, tuple[Callable[..., object], bool]] = {
    Kind.START: (lambda broker: broker.start(), False),
    Kind.TIME: (lambda broker: broker.time_msc(), False),
    Kind.IDENTITY: (lambda broker: broker.identity(), False),
    Kind.DEALS: (lambda broker, since: broker.deals(since), True),
    Kind.CLOSED_ORDERS: (lambda broker, since: broker.closed_orders(since), True),
    Kind.DEALS_OF_POSITION: (lambda broker, identifier: broker.deals_of_position(identifier), True),
    Kind.SYMBOL: (lambda broker, name: broker.symbol(name), True),
    Kind.TICK: (lambda broker, name: broker.tick(name), True),
    Kind.CHECK: (lambda broker, request: broker.check(request), True),
    Kind.CALCULATE: (lambda broker, question: broker.calculate(question), True),
    Kind.SEND: (lambda broker, request: _send(broker, request), True),
}


def _send(broker: Broker, request: TradeRequest) -> TradeResult | None:
    """Hand a request over, unless this process or the gateway was frozen until its time was over."""
    late_s = elapsed_s() - request.until_s
    if late_s > 0:
        raise TooLateError(_FAIL, f"it came to the terminal {late_s:.1f} s after its time was over")
    return broker.send(request)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the one that started it ends (Linux); elsewhere nothing.

    `PR_SET_PDEATHSIG` of prctl(2). Windows: `mt5crs_release.systems.windows.job`, from the other side.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        os._exit(0)


def own_pipes() -> tuple[int, int]:
    """Standard input and output, for this program alone: what a package prints goes to standard error, and a
    program that a package starts inherits neither.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        import msvcrt

        for each in (incoming, outgoing):
            msvcrt.setmode(each, os.O_BINARY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def main(arguments: list[str], opener: Callable[[Opening], Broker] = open_broker) -> int:
    """Entry point; exit status 0 when the gateway has closed the pipe, 1 when it wrote garbage, 2 usage."""
    if len(arguments) != 1 or not arguments[0].isdigit():
        print("usage: the gateway starts this; it is no command for people", file=sys.stderr)
        return 2
    # The service manager stops all processes of the gateway at once: this one ends after its gateway.
    for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    end_with(int(arguments[0]))
    try:
        Server(opener).serve(wire.Pipes(*own_pipes()))
    except wire.GarbageError as error:
        print(f"the gateway wrote garbage: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from mt5crs.service import exits

    exits.leave(main(sys.argv[1:]))
