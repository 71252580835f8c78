"""A `Trading` over a simulated broker in this process: for tests of a strategy, and `mt5crs strategy check`.

Nothing of it can reach a gateway. Time stands still until `advance` moves it: a test decides what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, TypeVar

from mt5crs.broker.interface import TradeRequest
from mt5crs.broker.retcodes import DONE
from mt5crs.broker.sim.backend import SimulatedBroker
from mt5crs.broker.sim.profile import Profile
from mt5crs.protocol.fields import OrderType, Side
from mt5crs.protocol.records import Order, Position, SymbolSpec, Tick
from mt5crs.strategy.api import OrderRefusedError, Outcome

_T = TypeVar("_T")
MAGIC = 202401
_BEGIN_MSC = 1_750_000_000_000
"""Where time begins: some working day, the same for every test."""


class PracticeTrading:
    """Implements `mt5crs.strategy.api.Trading`; made by :func:`practice`."""

    def __init__(
        self, directory: Path, symbol: str, volume: float, around: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.symbol, self.volume = symbol, volume
        self._now = _BEGIN_MSC
        self._around = around
        self._broker = SimulatedBroker(directory, Profile(), clock=lambda: self._now, durable=False)

    def advance(self, seconds: float) -> None:
        """Let time pass: quotes move, pending orders and stops are filled."""
        with self._around():
            self._now += round(seconds * 1000)
            self._broker.books()

    def positions(self) -> tuple[Position, ...]:
        """Open positions of the practice account."""
        with self._around():
            return tuple(self._broker.books().positions)

    def orders(self) -> tuple[Order, ...]:
        """Working orders of the practice account."""
        with self._around():
            return tuple(self._broker.books().orders)

    def quote(self, symbol: str) -> Tick:
        """The quote at this moment."""
        with self._around():
            return _known(self._broker.tick(symbol), symbol)

    def spec(self, symbol: str) -> SymbolSpec:
        """Contract specification."""
        with self._around():
            return _known(self._broker.symbol(symbol), symbol)

    def market(
        self,
        side: Side,
        volume: float,
        *,
        symbol: str | None = None,
        sl: float | None = None,
        tp: float | None = None,
        max_slippage_points: int | None = None,
    ) -> Outcome:
        """Buy or sell at the quote of this moment."""
        symbol = symbol or self.symbol
        return self._send(
            TradeRequest(
                action="DEAL",
                magic=MAGIC,
                comment="",
                filling=self.spec(symbol).filling_for("MARKET"),
                symbol=symbol,
                type=side,
                volume=volume,
                sl=sl or 0.0,
                tp=tp or 0.0,
                deviation=max_slippage_points,
            ),
            "FILLED",
        )

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
    ) -> Outcome:
        """Place a limit or stop order."""
        symbol = symbol or self.symbol
        kinds: dict[tuple[str, str], OrderType] = {
            ("BUY", "LIMIT"): "BUY_LIMIT",
            ("BUY", "STOP"): "BUY_STOP",
            ("SELL", "LIMIT"): "SELL_LIMIT",
            ("SELL", "STOP"): "SELL_STOP",
        }
        return self._send(
            TradeRequest(
                action="PENDING",
                magic=MAGIC,
                comment="",
                filling=self.spec(symbol).filling_for(kind),
                symbol=symbol,
                type=kinds[side, kind],
                volume=volume,
                price=price,
                sl=sl or 0.0,
                tp=tp or 0.0,
                expiration_msc=expiration_msc or 0,
            ),
            "PLACED",
        )

    def close(self, position: Position, volume: float | None = None) -> Outcome:
        """Close a position, or `volume` lots of it."""
        return self._send(
            TradeRequest(
                action="DEAL",
                magic=MAGIC,
                comment="",
                filling=self.spec(position.symbol).filling_for("MARKET"),
                symbol=position.symbol,
                type="SELL" if position.type == "BUY" else "BUY",
                volume=volume or position.volume,
                position=position.ticket,
            ),
            "FILLED",
        )

    def cancel(self, order: Order) -> Outcome:
        """Cancel a working order."""
        return self._send(
            TradeRequest(action="REMOVE", magic=MAGIC, comment="", filling=None, order=order.ticket),
            "CANCELED",
        )

    def end(self) -> None:
        """Close the practice broker's books."""
        self._broker.close()

    def _send(self, request: TradeRequest, good: Literal["FILLED", "PLACED", "CANCELED"]) -> Outcome:
        with self._around():
            result = self._broker.send(request)
        assert result is not None  # noqa: S101  (only an injected fault loses the reply)
        done = result.retcode == DONE
        held = {position.ticket: position for position in self.positions()}
        position = held.get(request.position or result.order)
        return Outcome(
            client_order_id=f"practice-{result.order}",
            result=good if done else "REJECTED",
            message=result.comment,
            retcode=result.retcode,
            order=result.order,
            position=position.identifier if position else 0,
            position_ticket=position.ticket if position else 0,
            volume=result.volume if done and good == "FILLED" else 0.0,
            price=result.price if done and good == "FILLED" else 0.0,
        )


@contextmanager
def practice(
    directory: Path,
    symbol: str = "EURUSD",
    volume: float = 0.01,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[PracticeTrading]:
    """A practice account with books in `directory`. `around` is entered for every call of the broker."""
    trading = PracticeTrading(directory, symbol, volume, around)
    try:
        yield trading
    finally:
        trading.end()


def _known(found: _T | None, symbol: str) -> _T:
    if found is None:
        raise OrderRefusedError("BROKER", "symbol", f"the simulated broker has no symbol {symbol!r}")
    return found
