"""Faults that tests (and drills) inject into the simulated broker."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from mt5crs.broker.interface import ExecutionMode, TradingMode
from mt5crs.protocol.fields import Execution, Filling

from .terminal import Showing

SendFaultKind = Literal[
    "lose_reply", "lose_request", "late_fill", "retcode", "hang", "too_late", "fill_after"
]


class SendFault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to the next trade request.

    lose_reply: executed, the caller gets no result (`retcode` 0) or that code. lose_request: not executed, no
    result or that code. late_fill: no result, executed `delay_ms` later. retcode: refused with `retcode`, not
    executed. hang: executed, answered after `delay_ms` of real time. too_late: not handed over, since
    its time was over before (a freeze). fill_after: of a cancel, done and answered; the order is filled
    `delay_ms` later all the same, as the market had it already.
    """

    kind: SendFaultKind
    retcode: int = 0
    delay_ms: Annotated[int, Meta(ge=0, le=600_000)] = 0


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a symbol takes, where that is not everything (`TradedSymbol`)."""

    mode: TradingMode = "FULL"
    execution: ExecutionMode = "MARKET"
    kinds: list[Execution] = field(default_factory=lambda: ["MARKET", "LIMIT", "STOP"])
    gtc: bool = True
    specified: bool = True
    sl: bool = True
    tp: bool = True
    stops_level: int = 0
    freeze_level: int = 0
    fillings: list[Filling] | None = None
    """None: those of the contract."""


class Faults(Struct, kw_only=True, forbid_unknown_fields=True):
    """All faults in force. Numbers count down with each use, flags stay until replaced."""

    send: list[SendFault] = field(default_factory=list)
    liquidity: float = 0.0
    """Most lots that a market order or a trigger fills at once (0: everything)."""
    disconnected: bool = False
    trade_disabled: bool = False
    market_closed: bool = False
    closed: list[str] = field(default_factory=list)
    """Symbols whose session is over (weekend, daily break): nothing is taken, not even a cancel."""
    rules: dict[str, Rules] = field(default_factory=dict)
    """By symbol. Not only faults: brokers change a symbol to close-only while it is traded."""
    login: int = 0
    """Another account number than the true one (0: no switch)."""
    fail_queries: int = 0
    """So many history queries fail."""
    fail_books: int = 0
    """So many reads of positions and orders fail."""
    hang_ms: int = 0
    """The next call of any kind takes this long."""
    terminal: Showing = field(default_factory=Showing)
    """How late and how oddly the terminal shows the books."""
