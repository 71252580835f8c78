"""What the terminal shows of the trade server's books: late, in part, or together with odd things of others.

The server (`backend`) executes at once; a real terminal hears of it afterwards, and of each kind of record by
itself. All knobs at rest: the terminal shows everything at once.
"""

import math
from collections import deque
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from mt5crs.broker.interface import TradedSymbol
from mt5crs.protocol.records import Deal, Order, Position

Lag = Annotated[int, Meta(ge=0, le=600_000)]
_KEPT = 10_000
_CUT_TO = 26
"""What some brokers keep of a comment."""
Record = TypeVar("Record", Position, Order, Deal)


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A terminal that has loaded so many of each list so far, the oldest; the rest `for_ms` later."""

    shown: Annotated[int, Meta(ge=0)]
    for_ms: Lag = 600_000


class Showing(Struct, kw_only=True, forbid_unknown_fields=True):
    """The knobs. Lags are milliseconds between a change at the server and its being shown."""

    positions_lag_ms: Lag = 0
    orders_lag_ms: Lag = 0
    history_lag_ms: Lag = 0
    """Orders that have ended."""
    deals_lag_ms: Lag = 0
    loading: bool = False
    """Just started: no positions, orders or history yet, though the account's money is known."""
    part: Part | None = None
    """Just started: the lists look whole and are not, from the moment this is set."""
    tick_value: Literal["", "zero", "nan"] = ""
    no_prices: list[str] = field(default_factory=list)
    """Symbols whose bid and ask are 0, as right after they were selected."""
    no_quote: list[str] = field(default_factory=list)
    """Symbols whose quote cannot be asked for."""
    still: list[str] = field(default_factory=list)
    """Symbols whose quote is the same, time and all, from the moment this is set."""
    clock_ahead_ms: Annotated[int, Meta(ge=-(10**9), le=10**9)] = 0
    """How far the time that the terminal's user goes by is ahead of the server's, which is on the records."""
    odd_records: bool = False
    """Records of other people that no request of ours could make: see ODD_POSITIONS and the like."""
    comments: Literal["", "cut", "rewritten", "dropped"] = ""
    """What the broker makes of them: cut after 26 characters, another text, as at a stop, or none."""
    login_at_send: int = 0
    """The account is switched to this one just before the next request, which that account then gets."""

    at_send: Literal["", "trade_off", "logged_out"] = ""
    """Just before the next request auto-trading goes off, or just after it the login is lost, so that its
    reply is, too. Both are over `at_send_ms` later.
    """
    at_send_ms: Lag = 0

    def lags(self) -> bool:
        """Whether anything is shown late or not at all."""
        return bool(
            self.positions_lag_ms
            or self.orders_lag_ms
            or self.history_lag_ms
            or self.deals_lag_ms
            or self.loading
            or self.part
        )

    def plain(self) -> bool:
        """Whether the lists are those of the server, so that its version of them is theirs."""
        return not (self.lags() or self.odd_records or self.comments)

    def loaded(self, records: list[Record], for_ms: int) -> list[Record]:
        """What is there of a list, so long after the terminal began to load."""
        return records[: self.part.shown] if self.part and for_ms < self.part.for_ms else records

    def commented(self, records: list[Record]) -> list[Record]:
        """Records with their comments as shown."""
        if not self.comments:
            return records
        return [msgspec.structs.replace(each, comment=self._comment(each.comment)) for each in records]

    def _comment(self, comment: str) -> str:
        if self.comments == "cut":
            return comment[:_CUT_TO]
        return "[sl 1.08500]" if self.comments == "rewritten" else ""

    def spec(self, spec: TradedSymbol) -> TradedSymbol:
        """A contract specification as shown."""
        if not self.tick_value:
            return spec
        return msgspec.structs.replace(spec, tick_value=0.0 if self.tick_value == "zero" else math.nan)


class Past(Struct):
    """Former positions and working orders, as long as someone may still be shown them."""

    _versions: deque[tuple[int, list[Position], list[Order]]] = field(default_factory=deque)

    def note(self, now: int, positions: list[Position], orders: list[Order], showing: Showing) -> None:
        """The books are so from now on."""
        if not showing.lags():
            self._versions.clear()
        self._versions.append((now, positions, orders))
        if len(self._versions) > _KEPT:
            self._versions.popleft()

    def positions(self, at: int) -> list[Position]:
        """Positions as they were at a time."""
        return self._at(at)[1]

    def orders(self, at: int) -> list[Order]:
        """Working orders as they were at a time."""
        return self._at(at)[2]

    def _at(self, at: int) -> tuple[int, list[Position], list[Order]]:
        found = self._versions[0]
        for version in self._versions:
            if version[0] > at:
                break
            found = version
        return found


def _odd_position(identifier: int, symbol: str, magic: int, price: float) -> Position:
    return Position(
        identifier=identifier,
        ticket=identifier,
        symbol=symbol,
        type="BUY",
        magic=magic,
        volume=0.1,
        price_open=price,
        price_current=price,
        sl=0.0,
        tp=0.0,
        profit=price,
        swap=0.0,
        time_msc=0,
        time_update_msc=0,
        reason=99,
        comment="\u00a3 by someone else, in more words than a request of ours could ever have " * 5,
    )


_ODD = (
    (1, "Volatility 75 Index", -1, 1.0),
    (2, "EUR/USD!", 2**64 - 1, -37.63),
    (3, "\u91d1" * 40, 99, math.nan),
    (4, "US30.cash", -(2**63), math.inf),
)
ODD_POSITIONS = [_odd_position(*odd) for odd in _ODD]
ODD_ORDERS = [
    Order(
        ticket=10 + number,
        symbol=symbol,
        type="BUY_STOP",
        state="PLACED",
        magic=magic,
        position_id=0,
        volume_initial=0.1,
        volume_current=0.2 if number == 3 else 0.1,
        price_open=price,
        sl=-1.0,
        tp=0.0,
        time_setup_msc=-1,
        time_done_msc=0,
        expiration_msc=0,
        reason=99,
        comment="",
    )
    for number, symbol, magic, price in _ODD
]
ODD_DEALS = [
    Deal(
        ticket=20 + number,
        order=0,
        position_id=0,
        symbol=symbol,
        type="OTHER",
        entry="IN",
        magic=magic,
        volume=0.0,
        price=price,
        commission=0.0,
        fee=0.0,
        swap=0.0,
        profit=price,
        time_msc=0,
        reason=99,
        comment="",
    )
    for number, symbol, magic, price in _ODD
]
