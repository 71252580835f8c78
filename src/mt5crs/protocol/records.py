"""What a snapshot and an event are made of: account, positions, orders, deals, symbols.

Times are milliseconds of the broker's clock. Volumes are lots. Names follow MetaTrader 5.
"""

from msgspec import Struct

from .fields import (
    Amount,
    Count,
    DealEntry,
    DealType,
    Execution,
    Filling,
    Magic,
    MarginMode,
    Milliseconds,
    Name,
    NonNegative,
    OrderState,
    OrderType,
    Side,
    Symbol,
    Text,
    Ticket,
    TicketOrZero,
    TradeMode,
    Volume,
)


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: every key present, none unknown."""


class Identity(Record, frozen=True, kw_only=True):
    """Which account at which server this gateway trades, and whether it may."""

    login: Count
    server: Text
    trade_mode: TradeMode
    margin_mode: MarginMode
    currency: Text
    connected: bool
    trade_allowed: bool


class Account(Record, frozen=True, kw_only=True):
    """Money of the account, in `currency`."""

    balance: Amount
    equity: Amount
    profit: Amount
    margin: NonNegative
    margin_free: Amount
    margin_level: NonNegative
    leverage: Count
    currency: Text


class Position(Record, frozen=True, kw_only=True):
    """An open position. `identifier` is its lasting key; `ticket` is what a trade request needs."""

    identifier: Ticket
    ticket: Ticket
    symbol: Symbol
    type: Side
    magic: Magic
    volume: Volume
    price_open: NonNegative
    price_current: NonNegative
    sl: NonNegative
    tp: NonNegative
    profit: Amount
    swap: Amount
    time_msc: Milliseconds
    time_update_msc: Milliseconds
    reason: Count
    comment: Text


class Order(Record, frozen=True, kw_only=True):
    """A working or a closed order. `volume_current` is what is not yet filled."""

    ticket: Ticket
    symbol: Symbol
    type: OrderType
    state: OrderState
    magic: Magic
    position_id: TicketOrZero
    volume_initial: NonNegative
    volume_current: NonNegative
    price_open: NonNegative
    sl: NonNegative
    tp: NonNegative
    time_setup_msc: Milliseconds
    time_done_msc: Milliseconds
    expiration_msc: Milliseconds
    reason: Count
    comment: Text


class Deal(Record, frozen=True, kw_only=True):
    """An executed trade (or a balance operation). `position_id` is the position's identifier."""

    ticket: Ticket
    order: TicketOrZero
    position_id: TicketOrZero
    symbol: str
    type: DealType
    entry: DealEntry
    magic: Magic
    volume: NonNegative
    price: NonNegative
    commission: Amount
    fee: Amount
    swap: Amount
    profit: Amount
    time_msc: Milliseconds
    reason: Count
    comment: Text


class Session(Record, frozen=True, kw_only=True):
    """Trading hours on one day (0 Sunday … 6 Saturday), in minutes of the broker's clock."""

    day: Count
    start_minute: Count
    end_minute: Count


class SymbolSpec(Record, frozen=True, kw_only=True):
    """Contract specification; reference data that may be cached. Holds no quote on purpose.

    `margin_initial` is the margin of one lot (0: computed from leverage). `sessions` null: this backend
    cannot tell the trading hours (the MetaTrader5 package does not expose them). `fillings` are those of a
    market order; a limit or stop order may always be RETURN.
    """

    symbol: Symbol
    description: Text
    digits: Count
    point: NonNegative
    contract_size: NonNegative
    volume_min: NonNegative
    volume_max: NonNegative
    volume_step: NonNegative
    stops_level: Count
    tick_size: NonNegative
    tick_value: NonNegative
    currency_profit: Text
    margin_initial: NonNegative
    trade_allowed: bool
    fillings: list[Filling]
    sessions: list[Session] | None

    def offers(self, filling: Filling, kind: Execution) -> bool:
        """Whether an order of this kind may have the filling."""
        return filling in self.fillings or (filling == "RETURN" and kind != "MARKET")

    def filling_for(self, kind: Execution) -> Filling | None:
        """The filling for an order that does not care; None when the symbol offers none.

        At market: what can be had now and no rest that stays behind (IOC), else all or nothing, else RETURN.
        """
        if kind != "MARKET":
            return "RETURN"
        order: tuple[Filling, ...] = ("IOC", "FOK", "RETURN")
        return next((each for each in order if each in self.fillings), None)


class Tick(Record, frozen=True, kw_only=True):
    """One quote."""

    symbol: Symbol
    bid: NonNegative
    ask: NonNegative
    time_msc: Milliseconds


class LeaseInfo(Record, frozen=True, kw_only=True):
    """Who may trade a magic number now. `remaining_ms` is 0 for a lease that ran out or was given back."""

    magic: Magic
    epoch: Count
    client: str
    instance: str
    remaining_ms: Count


class HaltInfo(Record, frozen=True, kw_only=True):
    """A halt in force. `magic` is 0 for the whole fleet."""

    magic: Magic
    reason: Text
    client: Name
    since_msc: Milliseconds


class GuardInfo(Record, frozen=True, kw_only=True):
    """What the risk gate knows of a magic number; `daily_profit` is null until it has looked at the books."""

    magic: Magic
    dry_run: bool
    unresolved: list[str]
    consecutive_failures: Count
    breaker_open: bool
    daily_profit: Amount | None
