"""What a strategy sees: `Strategy` to derive from, `Trading` to act with, `Outcome` and errors to act on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from mt5crs.protocol.fields import Side
from mt5crs.protocol.records import Order, Position, SymbolSpec, Tick
from mt5crs.settings.options import Option, complete

__all__ = [
    "Option",
    "OrderError",
    "OrderNotSentError",
    "OrderRefusedError",
    "OrderUnknownError",
    "Outcome",
    "Strategy",
    "Trading",
    "TradingSuspendedError",
]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order: final, whatever happens afterwards."""

    client_order_id: str
    result: Literal["FILLED", "PARTIAL", "PLACED", "CANCELED", "REJECTED", "DRY_RUN"]
    message: str
    retcode: int
    order: int
    """Ticket of the order at the broker; 0 when there is none."""
    position: int
    """Identifier of the position it opened or changed; 0 when there is none."""
    position_ticket: int
    volume: float
    """Lots filled."""
    price: float
    """Average price of what was filled; 0 when nothing was."""


class OrderError(Exception):
    """An order call that has no outcome. The subclasses say what is certain."""


class OrderRefusedError(OrderError):
    """Certain: not executed. A limit, a halt, bad values, a lost lease; `code` and `field` say which."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(f"{code}{f' ({field})' if field else ''}: {message}")
        self.code = code
        self.field = field


class OrderNotSentError(OrderError):
    """Certain: not executed. The gateway could not be reached; nothing was sent."""


class OrderUnknownError(OrderError):
    """Fate not known yet. The runner suspends trading until the gateway's records decide; never retry."""


class TradingSuspendedError(OrderError):
    """Certain: not executed. The state is not known or the lease not held; the runner calls you again."""


class Trading(Protocol):
    """The way to the broker. Every method returns or raises within ORDER_TIMEOUT_S; none hangs."""

    @property
    def symbol(self) -> str:
        """The configured SYMBOL."""

    @property
    def volume(self) -> float:
        """The configured VOLUME in lots."""

    def positions(self) -> tuple[Position, ...]:
        """Open positions of our magic number, the effects of all our outcomes included.

        Raises TradingSuspendedError when they are not known.
        """

    def orders(self) -> tuple[Order, ...]:
        """Working orders of our magic number, on the same terms as `positions`."""

    def quote(self, symbol: str) -> Tick:
        """The current quote, asked for now and never cached. Raises OrderError."""

    def spec(self, symbol: str) -> SymbolSpec:
        """Contract specification and hours, from the reference-data cache. Raises OrderError."""

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
        """Buy or sell at market. Raises OrderError.

        `expected_profit`: in account currency; phases of production ask for a minimum (docs/phases.md).
        """

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
        """Place a limit or stop order; PLACED when it works. Raises OrderError."""

    def close(self, position: Position, volume: float | None = None) -> Outcome:
        """Close a position, or `volume` lots of it. Raises OrderError."""

    def cancel(self, order: Order) -> Outcome:
        """Cancel a working order; CANCELED only when the broker confirms. Raises OrderError."""


class Strategy:
    """Base of all strategies. Override what you need; the runner calls from one thread only.

    Calls come only while the state is known and the lease is held. An OrderError that you let pass is logged
    and counted; any other exception ends the process (systemd starts it again).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options` is STRATEGY_OPTIONS. Raise ValueError for bad ones: the process exits with status 78.

        Called too while a new version stands by, where nothing can be traded: have no effects here.
        Raises that ValueError itself for what `known_options` does not allow.
        """
        self.options: Mapping[str, Any] = options
        if self.known_options is not None:
            self.options, wrong = complete(self.known_options, options)
            if wrong:
                raise ValueError("; ".join(wrong))

    known_options: ClassVar[Mapping[str, Option] | None] = None
    """Name → option. Write it out, as a dictionary of `Option(…)`: it is read from the source when the bundle
    is made, so that options are checked before a deployment. `self.options` then has every one of them.
    """

    data_dir: ClassVar[Path] = Path("data")
    """Where the data files of the strategy's bundle are; without one (in a test, say) ./data."""

    @classmethod
    def data_file(cls, name: str) -> Path:
        """Return the path of a data file that came with the strategy, such as its model; read-only.

        Raises ValueError when there is none of that name, which ends the process with status 78.
        """
        path = cls.data_dir / name
        if not path.is_file():
            there = sorted(
                found.relative_to(cls.data_dir).as_posix()
                for found in cls.data_dir.rglob("[!.]*")
                if found.is_file()
            )
            raise ValueError(
                f"no data file {name!r} came with the strategy (there is: {', '.join(there) or 'none'}); "
                "name it under `data` in strategies/<name>.yml"
            )
        return path

    def on_start(self, trading: Trading) -> None:
        """Called once, when trading is possible for the first time."""

    def on_timer(self, trading: Trading) -> None:
        """Called every TICK_INTERVAL_S."""

    def on_resume(self, trading: Trading) -> None:
        """Called when trading is possible again after a suspension; look at `positions()` before you act."""

    def on_stop(self) -> None:
        """Called once before the process ends on purpose; trading is over by then."""
