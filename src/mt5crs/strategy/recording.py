"""What the running strategy sees and decides, put on tape as long as a shadow of it asks for that.

Otherwise it passes every call on and nothing else. Whatever fails here is said once and costs the tape, never
a trade.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from mt5crs.protocol.fields import Side
from mt5crs.protocol.records import Order, Position, SymbolSpec, Tick
from mt5crs.service.logs import Log
from mt5crs.strategy.api import OrderError, OrderRefusedError, Outcome
from mt5crs.strategy.tape import BEGAN, TAPE, Call, Decision, Failed, Kind, Read, TapeWriter, remove
from mt5crs.strategy.trading import LiveTrading

R = TypeVar("R")


class Recorder:
    """Implements `mt5crs.strategy.api.Trading`; it is what the strategy is given."""

    def __init__(self, trading: LiveTrading, log: Log, *, wanted_by: Path, state_dir: Path) -> None:
        """wanted_by: the directory of the shadow; it is there exactly while one runs."""
        self._trading = trading
        self._log = log
        self._wanted_by = wanted_by
        self._path = state_dir / TAPE
        self._run = uuid.uuid4().hex[:12]
        self._number = 0
        self._writer: TapeWriter | None = None
        self._given_up = False
        self._callback: Recording | None = None
        self._last: dict[str, object] = {}
        remove(self._path)

    def look(self) -> None:
        """Begin or end the tape, as there is a shadow or not. Meant to be called from the main loop."""
        wanted = self._wanted_by.is_dir()
        if not wanted:
            if self._writer is not None:
                self._end()
            self._given_up = False
        elif self._writer is None and not self._given_up:
            self._guarded(self._begin)

    @contextmanager
    def calling(self, callback: str) -> Iterator[None]:
        """A callback of the strategy; what it asks and decides meanwhile goes on the tape."""
        if self._writer is None:
            yield
            return
        self._number += 1
        made = self._callback = Recording(self._run, self._number, callback)
        try:
            yield
        except OrderError as error:
            made.failed = failed(error)
            raise
        finally:
            self._callback = None
            self._guarded(lambda: self._write(made.call()))

    @property
    def symbol(self) -> str:
        """The configured SYMBOL."""
        return self._trading.symbol

    @property
    def volume(self) -> float:
        """The configured VOLUME in lots."""
        return self._trading.volume

    def positions(self) -> tuple[Position, ...]:
        """Open positions, own outcomes included."""
        if self._callback is None:
            return self._trading.positions()
        return self._read("positions", self._trading.positions)

    def orders(self) -> tuple[Order, ...]:
        """Working orders, own outcomes included."""
        if self._callback is None:
            return self._trading.orders()
        return self._read("orders", self._trading.orders)

    def quote(self, symbol: str) -> Tick:
        """The current quote, asked for now."""
        if self._callback is None:
            return self._trading.quote(symbol)
        return self._read("quote", lambda: self._trading.quote(symbol), symbol)

    def spec(self, symbol: str) -> SymbolSpec:
        """Contract specification, cached."""
        return self._waiting(lambda: self._trading.spec(symbol))

    def leverage(self) -> int:
        """Leverage limit of the account, cached."""
        return self._waiting(self._trading.leverage)

    def market(
        self,
        side: Side,
        volume: float,
        *,
        symbol: str | None = None,
        sl: float | None = None,
        tp: float | None = None,
        max_slippage_points: int | None = None,
        expected_profit: float | None = None,
    ) -> Outcome:
        """Buy or sell at market."""

        def send() -> Outcome:
            return self._trading.market(
                side,
                volume,
                symbol=symbol,
                sl=sl,
                tp=tp,
                max_slippage_points=max_slippage_points,
                expected_profit=expected_profit,
            )

        if self._callback is None:
            return send()
        wanted = self._callback.decision(
            "MARKET",
            symbol or self.symbol,
            side,
            volume,
            where(),
            sl=sl,
            tp=tp,
            max_slippage_points=max_slippage_points,
            expected_profit=expected_profit,
        )
        return self._decide(wanted, send)

    def pending(
        self,
        kind: Literal["LIMIT", "STOP"],
        side: Side,
        volume: float,
        price: float,
        *,
        symbol: str | None = None,
        sl: float | None = None,
        tp: float | None = None,
        expiration_msc: int | None = None,
        expected_profit: float | None = None,
    ) -> Outcome:
        """Place a limit or stop order."""

        def send() -> Outcome:
            return self._trading.pending(
                kind,
                side,
                volume,
                price,
                symbol=symbol,
                sl=sl,
                tp=tp,
                expiration_msc=expiration_msc,
                expected_profit=expected_profit,
            )

        if self._callback is None:
            return send()
        wanted = self._callback.decision(
            kind,
            symbol or self.symbol,
            side,
            volume,
            where(),
            price=price,
            sl=sl,
            tp=tp,
            expiration_msc=expiration_msc,
            expected_profit=expected_profit,
        )
        return self._decide(wanted, send)

    def close(self, position: Position, volume: float | None = None) -> Outcome:
        """Close a position, or part of it."""
        if self._callback is None:
            return self._trading.close(position, volume)
        wanted = self._callback.closing(position, volume, where())
        return self._decide(wanted, lambda: self._trading.close(position, volume))

    def cancel(self, order: Order) -> Outcome:
        """Cancel a working order."""
        if self._callback is None:
            return self._trading.cancel(order)
        wanted = self._callback.cancelling(order, where())
        return self._decide(wanted, lambda: self._trading.cancel(order))

    def end(self) -> None:
        """End the tape: the process ends."""
        if self._writer is not None:
            self._end()

    def _begin(self) -> None:
        self._writer = TapeWriter(self._path)
        self._last = {}
        self._writer.write(Call(self._run, self._number, now_ms(), BEGAN))
        self._log.info("tape.began", path=str(self._path))

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        remove(self._path)

    def _write(self, call: Call) -> None:
        if self._writer is not None:
            self._writer.write(call)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do without the tape when it cannot be written, until there is another shadow."""
        try:
            act()
        except Exception as error:  # whatever it is: the strategy trades on
            self._given_up = True
            self._log.warning("tape.given_up", reason=repr(error))
            self._end()

    def _read(
        self, what: Literal["positions", "orders", "quote"], ask: Callable[[], R], symbol: str = ""
    ) -> R:
        callback = self._callback
        if callback is None:
            return ask()
        try:
            with callback.waiting():
                found = ask()
        except OrderError as error:
            callback.reads.append(Read(what, len(callback.decisions), symbol, failed=failed(error)))
            raise
        known: dict[str, object] = {"tick" if what == "quote" else what: found}
        if what != "quote" and self._last.get(what) is found:
            known = {"as_before": True}
        self._last[what] = found
        callback.reads.append(Read(what, len(callback.decisions), symbol, **known))  # type: ignore[arg-type]
        return found

    def _waiting(self, ask: Callable[[], R]) -> R:
        if self._callback is None:
            return ask()
        with self._callback.waiting():
            return ask()

    def _decide(self, wanted: Decision, send: Callable[[], Outcome]) -> Outcome:
        callback = self._callback
        if callback is None:
            return send()
        try:
            with callback.waiting():
                outcome = send()
        except OrderError as error:
            callback.made(wanted, failed=failed(error))
            raise
        callback.made(wanted, outcome=outcome)
        return outcome


class Recording:
    """A callback while it runs: what it asked and decided so far, and its own time."""

    def __init__(self, run: str, number: int, callback: str) -> None:
        self._run, self._number, self._name = run, number, callback
        self._at_ms = now_ms()
        self._began = time.monotonic()
        self._waited_s = 0.0
        self.reads: list[Read] = []
        self.decisions: list[Decision] = []
        self.failed: Failed | None = None
        self.asked_itself = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time that is not the strategy's own passes: others answer."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited_s += time.monotonic() - began

    def decision(
        self,
        kind: Kind,
        symbol: str,
        side: Side | str,
        volume: float,
        asked_in: str,
        *,
        ticket: int = 0,
        price: float | None = None,
        sl: float | None = None,
        tp: float | None = None,
        max_slippage_points: int | None = None,
        expiration_msc: int | None = None,
        expected_profit: float | None = None,
    ) -> Decision:
        """What was decided at this moment; not noted yet."""
        return Decision(
            uuid.uuid4().hex,
            now_ms(),
            kind,
            symbol,
            side,
            volume,
            asked_in,
            round(self._own_s(), 6),
            ticket,
            price,
            sl,
            tp,
            max_slippage_points,
            expiration_msc,
            expected_profit,
        )

    def closing(self, position: Position, volume: float | None, asked_in: str) -> Decision:
        """The same of a position that is closed."""
        lots = position.volume if volume is None else volume
        return self.decision("CLOSE", position.symbol, position.type, lots, asked_in, ticket=position.ticket)

    def cancelling(self, order: Order, asked_in: str) -> Decision:
        """The same of an order that is cancelled."""
        return self.decision(
            "CANCEL", order.symbol, order.type, order.volume_current, asked_in, ticket=order.ticket
        )

    def made(self, wanted: Decision, *, outcome: Outcome | None = None, failed: Failed | None = None) -> None:
        """Note a decision with what became of it."""
        fields = {name: getattr(wanted, name) for name in wanted.__struct_fields__}
        name = wanted.id if outcome is None else outcome.client_order_id
        self.decisions.append(Decision(**{**fields, "id": name, "outcome": outcome, "failed": failed}))

    def call(self) -> Call:
        """All of it."""
        return Call(
            self._run,
            self._number,
            self._at_ms,
            self._name,
            tuple(self.reads),
            tuple(self.decisions),
            round(self._own_s(), 6),
            self.asked_itself,
            self.failed,
        )

    def _own_s(self) -> float:
        return time.monotonic() - self._began - self._waited_s


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def where() -> str:
    """The line of code that called the method that calls this."""
    frame = sys._getframe(2)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def failed(error: OrderError) -> Failed:
    """An OrderError as it goes on the tape."""
    if isinstance(error, OrderRefusedError):
        said = str(error).partition(": ")[2]
        return Failed(type(error).__name__, said, error.code, error.field)
    return Failed(type(error).__name__, str(error))
