"""What the gateway asks of a broker. All calls come from one thread."""

import math
from typing import Literal, Protocol

from msgspec import Struct, field

from mt5crs.protocol.fields import Execution, Filling, OrderType, Side
from mt5crs.protocol.records import Account, Deal, Identity, Order, Position, SymbolSpec, Tick


class BrokerError(Exception):
    """The broker could not answer: its state is unknown, not empty. `code` as MetaTrader 5's last_error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} (last_error {code})")
        self.code = code
        self.message = message


class TooLateError(BrokerError):
    """The request was certainly not handed over: its time was over before it could be."""


class TradeRequest(Struct, frozen=True, kw_only=True):
    """One request to the trade server. `price` 0: at the current quote. `deviation` in points.

    DEAL trades at market (with `position` it closes that ticket), PENDING places an order, REMOVE cancels
    `order`. `filling` is one that the symbol offers (`SymbolSpec.filling_for`); None for REMOVE only.
    Whoever sees `elapsed_s` beyond `until_s` just before the trade server gets it raises TooLateError.
    """

    action: Literal["DEAL", "PENDING", "REMOVE"]
    magic: int
    comment: str
    filling: Filling | None
    symbol: str = ""
    type: OrderType = "BUY"
    volume: float = 0.0
    price: float = 0.0
    sl: float = 0.0
    tp: float = 0.0
    deviation: int | None = None
    expiration_msc: int = 0
    position: int = 0
    order: int = 0
    until_s: float = math.inf


TradingMode = Literal["DISABLED", "LONG_ONLY", "SHORT_ONLY", "CLOSE_ONLY", "FULL"]
"""SYMBOL_TRADE_MODE_…, in their order."""
ExecutionMode = Literal["REQUEST", "INSTANT", "MARKET", "EXCHANGE"]
"""SYMBOL_TRADE_EXECUTION_…, in their order."""


class TradedSymbol(SymbolSpec, frozen=True, kw_only=True):
    """A specification, and what its symbol takes now; between terminal and gateway only.

    `gtc` and `specified`: whether an order may last until cancelled, or until a time of its own.
    `freeze_level` in points: so near to the market nothing is changed or cancelled.
    """

    mode: TradingMode = "FULL"
    execution: ExecutionMode = "MARKET"
    kinds: list[Execution] = field(default_factory=lambda: ["MARKET", "LIMIT", "STOP"])
    gtc: bool = True
    specified: bool = True
    sl: bool = True
    tp: bool = True
    freeze_level: int = 0

    def specification(self) -> SymbolSpec:
        """What clients are told."""
        return SymbolSpec(**{name: getattr(self, name) for name in SymbolSpec.__struct_fields__})


class TradeResult(Struct, frozen=True, kw_only=True):
    """The trade server's reply."""

    retcode: int
    order: int
    deal: int
    volume: float
    price: float
    comment: str


class CheckOutcome(Struct, frozen=True, kw_only=True):
    """Reply to an order check; `retcode` 0 means it would be accepted."""

    retcode: int
    comment: str
    margin: float
    margin_free: float


class Calculation(Struct, frozen=True, kw_only=True):
    """A question what a deal would mean in account currency: the margin of opening it at `price`, or the
    profit of opening it at `price` and closing it at `close`.
    """

    what: Literal["margin", "profit"]
    symbol: str
    side: Side
    volume: float
    price: float
    close: float = 0.0


class Books(Struct, frozen=True, kw_only=True):
    """Positions and working orders of the whole account, read together.

    `version` changes whenever anything but prices does; None when the backend cannot tell. A list is never
    changed once handed out: the same one again means that nothing in it has changed, prices included.
    """

    time_msc: int
    identity: Identity
    account: Account
    positions: list[Position]
    orders: list[Order]
    version: int | None


class Broker(Protocol):
    """A broker. Every method may raise BrokerError and may take arbitrarily long."""

    def start(self) -> None:
        """Connect; called once, and again after a failure."""

    def close(self) -> None:
        """Let go of the broker."""

    def time_msc(self) -> int:
        """The broker's clock, in milliseconds."""

    def identity(self) -> Identity:
        """Which account this is, and whether it is connected and may trade."""

    def books(self) -> Books:
        """A consistent view of account, positions and working orders."""

    def deals(self, since_msc: int) -> list[Deal]:
        """Deals at or after a broker time, oldest first."""

    def closed_orders(self, since_msc: int) -> list[Order]:
        """Orders that ended at or after a broker time, oldest first."""

    def deals_of_position(self, identifier: int) -> list[Deal]:
        """All deals of one position."""

    def symbol(self, name: str) -> TradedSymbol | None:
        """Contract specification; None when the broker has no such symbol."""

    def tick(self, name: str) -> Tick | None:
        """Latest quote; None when the broker has no such symbol."""

    def check(self, request: TradeRequest) -> CheckOutcome:
        """Would the request be accepted?"""

    def calculate(self, question: Calculation) -> float:
        """What a deal would mean in account currency, as the broker itself reckons it."""

    def send(self, request: TradeRequest) -> TradeResult | None:
        """Hand the request to the trade server, once. None: no reply, it may have been executed or not."""
