"""The broker in a process of its own, as the gateway sees it: whoever misses a deadline is killed.

What a killed process was doing is not known: the call raises BrokerError, which for `send` means that it may
have been executed. Nothing of a broker's package ever runs in the gateway's process.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mt5crs.protocol.records import Deal, Identity, Order, Position, Tick
from mt5crs.service.elapsed import elapsed_s

from . import wire
from .interface import (
    Books,
    BrokerError,
    Calculation,
    CheckOutcome,
    TooLateError,
    TradedSymbol,
    TradeRequest,
    TradeResult,
)
from .process import Child
from .wire import Change, Kind, Opening, Status

NO_CONNECTION = -10004
AUTHORISATION_FAILED = -6
"""The package's code for a login that the trade server refuses."""
_CONNECTION_LOST = frozenset({-10001, -10002, -10003, NO_CONNECTION, -10005})
"""The package's codes for a pipe to the terminal that does not work; after a restart of the terminal all
calls give -10004 until `initialize` is called again.
"""
_ENDS_WITHIN_S = 2.0
_SAME_LOOK_S = 0.005
"""For how long a quote and a specification are the answer, unless the books are looked at before."""
_FIRST_VERSION = 40
"""Bits for the version of the books that one process counts."""

Cause = Literal["deadline", "ended", "garbage"]


class Deadlines(Struct, frozen=True, kw_only=True):
    """Seconds that a call may take before its process is killed, by kind of call."""

    start_s: float
    read_s: float
    order_s: float

    def of(self, kind: Kind) -> float:
        """Seconds for one kind."""
        if kind in (Kind.OPEN, Kind.START):
            return self.start_s
        return self.order_s if kind in (Kind.SEND, Kind.CHECK) else self.read_s


class _Call(Struct, frozen=True):
    child: Child
    began: float
    deadline: float


class RemoteBroker:
    """Implements `mt5crs.broker.interface.Broker` over a terminal process. After `launch`: for one thread.

    `start` connects, with a new process if there is none; `down` says that it is to be called again.
    """

    def __init__(
        self,
        spawn: Callable[[], Child],
        opening: Opening,
        deadlines: Deadlines,
        *,
        lost: Callable[[Cause, str, str], None] = lambda *_: None,
        other_clock: bool = False,
    ) -> None:
        """`lost(cause, reason, said)` is told of each process that was lost, and what it wrote last.

        other_clock: `elapsed_s` of the process is not this one's (under Wine), but goes on as it does.
        """
        self._spawn = spawn
        self._opening = wire.encode(opening)
        self._deadlines = deadlines
        self._lost = lost
        self._other_clock = other_clock
        self._ahead_s: float | None = None
        """By how much the clock of the process is ahead, at least; None until it has told."""
        self._child: Child | None = None
        self._pipes: wire.Pipes | None = None
        self._opened = False
        self._down = "the terminal is being started"
        self._number = 0
        self._processes = 0
        self._current: _Call | None = None
        self._overdue: Child | None = None
        self._positions: list[Position] | None = None
        self._orders: list[Order] | None = None
        self._market: dict[tuple[Kind, str], tuple[float, Any]] = {}
        self._closed = threading.Event()
        self._guard = threading.Thread(target=self._watch, name="terminal-guard", daemon=True)

    # --- the process ---------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the process, so that it gets ready while the gateway does. Raises BrokerError."""
        if not self._guard.is_alive():
            self._guard.start()
        try:
            child = self._spawn()
        except OSError as error:
            raise BrokerError(NO_CONNECTION, f"the terminal process cannot be started: {error}") from error
        self._child, self._pipes = child, wire.Pipes(child.answers, child.questions)
        self._opened = False
        self._ahead_s = None
        self._positions = self._orders = None
        self._processes += 1

    def down(self) -> str:
        """Why `start` has to be called (again); empty while the connection works."""
        return self._down

    def waiting_s(self) -> float:
        """For how long the call that is being made has had no answer. Safe to call from another thread."""
        call = self._current
        return 0.0 if call is None else time.monotonic() - call.began

    def start(self) -> None:
        """Connect the terminal; what cannot be started is given up, the next attempt is a new process."""
        if self._child is None:
            self.launch()
        try:
            if not self._opened:
                self._ask(Kind.OPEN, self._opening)
                self._opened = True
            self._ask(Kind.START)
        except BrokerError as error:
            self._down = str(error)
            self._give_up()
            raise
        self._down = ""

    def close(self) -> None:
        """Let the process end by itself, or kill it."""
        self._closed.set()
        child = self._child
        if child is not None:
            child.close()
            if not child.ended(_ENDS_WITHIN_S):
                child.kill()
                child.ended(_ENDS_WITHIN_S)
            self._child = self._pipes = None
            self._down = "the terminal has been closed"

    def _give_up(self) -> None:
        child, self._child, self._pipes = self._child, None, None
        if child is not None:
            child.kill()
            child.ended(_ENDS_WITHIN_S)
            child.close()

    def _watch(self) -> None:
        """Kills the process of an overdue call. Sleeps no longer than the shortest deadline, so it is never
        late, although no call wakes it.
        """
        deadlines = self._deadlines
        shortest = min(deadlines.start_s, deadlines.read_s, deadlines.order_s)
        pause = shortest
        while not self._closed.wait(pause):
            call, pause = self._current, shortest
            if call is None:
                continue
            left = call.deadline - time.monotonic()
            if left <= 0:
                self._overdue = call.child
                call.child.kill()
            else:
                pause = min(shortest, left)

    # --- calls ---------------------------------------------------------------------------------------------

    def _ask(self, kind: Kind, body: bytes = b"\xc0") -> Any:
        child, pipes = self._child, self._pipes
        if child is None or pipes is None:
            raise BrokerError(NO_CONNECTION, f"there is no terminal process: {self._down}")
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        began = time.monotonic()
        self._current = _Call(child, began, began + self._deadlines.of(kind))
        try:
            pipes.put(number, kind, body)
            _, status, answer = pipes.take(number)
        except wire.GarbageError as error:
            raise self._lose(kind, "garbage", str(error)) from error
        except (OSError, wire.PipeEndedError) as error:
            raise self._lose(kind, "ended", str(error)) from error
        finally:
            self._current = None
        try:
            if status == Status.DONE:
                return wire.answer(kind, answer)
            failed = wire.failure(answer).raised()
        except msgspec.DecodeError as error:
            raise BrokerError(-1, f"the answer to {kind.name.lower()} cannot be read: {error}") from error
        if failed.code in _CONNECTION_LOST:
            self._down = str(failed)
        raise failed

    def _lose(self, kind: Kind, cause: Cause, detail: str) -> BrokerError:
        child = self._child
        assert child is not None  # noqa: S101
        child.kill()
        end = child.ended(_ENDS_WITHIN_S) or "it does not end"
        name = kind.name.lower()
        if self._overdue is child:
            cause = "deadline"
            reason = f"{name} had no answer within {self._deadlines.of(kind):g} s; the process was killed"
        elif cause == "garbage":
            reason = f"{name} was answered with garbage ({detail}); the process was killed"
        else:
            reason = f"the terminal process ended during {name} ({end})"
        self._overdue = None
        self._down = reason
        self._lost(cause, reason, child.said())
        self._give_up()
        return BrokerError(NO_CONNECTION, reason)

    # --- the interface -------------------------------------------------------------------------------------

    def time_msc(self) -> int:
        """The broker's clock."""
        return int(self._ask(Kind.TIME))

    def identity(self) -> Identity:
        """Which account this is."""
        self._market.clear()
        identity: Identity = self._ask(Kind.IDENTITY)
        return identity

    def books(self) -> Books:
        """Account, positions and working orders; lists that have not changed are the same ones again."""
        self._market.clear()
        whole = self._positions is None or self._orders is None
        positions, orders, self._positions, self._orders = self._positions, self._orders, None, None
        change: Change = self._ask(Kind.BOOKS, b"\xc3" if whole else b"\xc2")
        if self._other_clock:  # what the answer took makes it look behind, so an order's time ends too early
            self._ahead_s = change.elapsed_s - elapsed_s()
        self._positions = positions = positions if change.positions is None else change.positions
        self._orders = orders = orders if change.orders is None else change.orders
        if positions is None or orders is None:
            raise BrokerError(-1, "the terminal process left out a list that it had not sent")
        return Books(
            time_msc=change.time_msc,
            identity=change.identity,
            account=change.account,
            positions=positions,
            orders=orders,
            # another process counts anew
            version=None if change.version is None else (self._processes << _FIRST_VERSION) + change.version,
        )

    def deals(self, since_msc: int) -> list[Deal]:
        """Deals since a time."""
        deals: list[Deal] = self._ask(Kind.DEALS, wire.encode(since_msc))
        return deals

    def closed_orders(self, since_msc: int) -> list[Order]:
        """Closed orders since a time."""
        orders: list[Order] = self._ask(Kind.CLOSED_ORDERS, wire.encode(since_msc))
        return orders

    def deals_of_position(self, identifier: int) -> list[Deal]:
        """Deals of a position."""
        deals: list[Deal] = self._ask(Kind.DEALS_OF_POSITION, wire.encode(identifier))
        return deals

    def symbol(self, name: str) -> TradedSymbol | None:
        """Contract specification."""
        spec: TradedSymbol | None = self._of_market(Kind.SYMBOL, name)
        return spec

    def tick(self, name: str) -> Tick | None:
        """Latest quote."""
        tick: Tick | None = self._of_market(Kind.TICK, name)
        return tick

    def _of_market(self, kind: Kind, name: str) -> Any:
        """Asked once for one look at the books: an order needs the same quote several times."""
        now = time.monotonic()
        at, found = self._market.get((kind, name), (0.0, None))
        if now - at > _SAME_LOOK_S:
            found = self._ask(kind, wire.encode(name))
            self._market[kind, name] = (now, found)
        return found

    def check(self, request: TradeRequest) -> CheckOutcome:
        """Would the request be accepted?"""
        outcome: CheckOutcome = self._ask(Kind.CHECK, wire.encode(request))
        return outcome

    def calculate(self, question: Calculation) -> float:
        """Margin or profit in account currency."""
        return float(self._ask(Kind.CALCULATE, wire.encode(question)))

    def send(self, request: TradeRequest) -> TradeResult | None:
        """Hand the request over, once. None or BrokerError: it may have been executed or not."""
        self._market.clear()
        if self._other_clock:
            request = msgspec.structs.replace(request, until_s=self._on_its_clock(request.until_s))
        result: TradeResult | None = self._ask(Kind.SEND, wire.encode(request))
        return result

    def _on_its_clock(self, until_s: float) -> float:
        if until_s != math.inf and self._ahead_s is None:
            raise TooLateError(-1, "the clock of the terminal process is not known before its books are read")
        return until_s + (self._ahead_s or 0.0)


def opening_of(backend: Literal["sim", "mt5"], state_dir: str, configuration: Struct) -> Opening:
    """The first question to a terminal process. It may hold a password."""
    return Opening(
        version=wire.VERSION,
        state_dir=state_dir,
        backend=backend,
        configuration=msgspec.Raw(wire.encode(configuration)),
    )
