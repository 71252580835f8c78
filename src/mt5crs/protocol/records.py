"""What a snapshot and an event are made of: account, positions, orders, deals, symbols.

Times are milliseconds of the broker's clock. Volumes are lots. Names follow MetaTrader 5.

What a broker says is read as it is: a symbol of any letters, a magic number of any 64 bits, prices and money
that are negative, infinite or not a number. The bounds of requests are not its bounds, and one record that no
request of ours could have made must not hide the others.
"""

from msgspec import Struct

from .fields import (
    Count,
    DealEntry,
    DealType,
    Execution,
    Filling,
    Magic,
    MarginMode,
    Milliseconds,
    Name,
    OrderState,
    OrderType,
    Side,
    Text,
    TradeMode,
)


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: every key present, none unknown."""


class Identity(Record, frozen=True, kw_only=True):
    """Which account at which server this gateway trades, and whether it may."""

    login: int
    server: str
    trade_mode: TradeMode
    margin_mode: MarginMode
    currency: str
    connected: bool
    trade_allowed: bool


class Account(Record, frozen=True, kw_only=True):
    """Money of the account, in `currency`."""

    balance: float
    equity: float
    profit: float
    margin: float
    margin_free: float
    margin_level: float
    leverage: int
    currency: str


class Position(Record, frozen=True, kw_only=True):
    """An open position. `identifier` is its lasting key; `ticket` is what a trade request needs."""

    identifier: int
    ticket: int
    symbol: str
    type: Side
    magic: int
    volume: float
    price_open: float
    price_current: float
    sl: float
    tp: float
    profit: float
    swap: float
    time_msc: int
    time_update_msc: int
    reason: int
    comment: str


class Order(Record, frozen=True, kw_only=True):
    """A working or a closed order. `volume_current` is what is not yet filled."""

    ticket: int
    symbol: str
    type: OrderType
    state: OrderState
    magic: int
    position_id: int
    volume_initial: float
    volume_current: float
    price_open: float
    sl: float
    tp: float
    time_setup_msc: int
    time_done_msc: int
    expiration_msc: int
    reason: int
    comment: str


class Deal(Record, frozen=True, kw_only=True):
    """An executed trade (or a balance operation). `position_id` is the position's identifier."""

    ticket: int
    order: int
    position_id: int
    symbol: str
    type: DealType
    entry: DealEntry
    magic: int
    volume: float
    price: float
    commission: float
    fee: float
    swap: float
    profit: float
    time_msc: int
    reason: int
    comment: str


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

    symbol: str
    description: str
    digits: int
    point: float
    contract_size: float
    volume_min: float
    volume_max: float
    volume_step: float
    stops_level: int
    tick_size: float
    tick_value: float
    currency_profit: str
    margin_initial: float
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

    symbol: str
    bid: float
    ask: float
    time_msc: int


class LeaseInfo(Record, frozen=True, kw_only=True):
    """Who may trade a magic number now. `remaining_ms` is 0 for a lease that ran out or was given back.

    `instance` is empty in events, and in a STATUS for a client that neither administers nor has this magic.
    """

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
    """What the risk gate knows of a magic number; `daily_profit` is null while that is not known."""

    magic: Magic
    dry_run: bool
    unresolved: list[str]
    consecutive_failures: Count
    breaker_open: bool
    daily_profit: float | None


class PhaseFact(Record, frozen=True, kw_only=True):
    """What was recorded in the present phase. `value` null: not known. `source` says where it comes from."""

    name: str
    value: float | None
    source: Text


class PhaseAct(Record, frozen=True, kw_only=True):
    """Something that changed a phase, or would break one. `magic` 0: the gateway itself (a crash)."""

    at_msc: Milliseconds
    magic: Magic
    act: str
    profile: str
    serial: Count
    by: str
    reason: str
