"""Requests. On the wire: a msgpack map whose `kind` names the type and which holds every key below."""

from typing import Annotated

from msgspec import Meta, Struct

from .fields import (
    Amount,
    Count,
    Epoch,
    Execution,
    Filling,
    HaltScope,
    Magic,
    Milliseconds,
    Name,
    Points,
    Price,
    Side,
    Symbol,
    Ticket,
    TradingState,
    Volume,
)

Reason = Annotated[str, Meta(min_length=3, max_length=256)]
TtlMs = Annotated[int, Meta(ge=500, le=60_000)]
ValidMs = Annotated[int, Meta(ge=1, le=60_000)]
SignedText = Annotated[str, Meta(min_length=1, max_length=8192)]
ProfileName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+\Z")]
HistoryLimit = Annotated[int, Meta(ge=1, le=10_000)]


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every request carries: version, request id, the client's own name and a magic number.

    `client` must be the name the gateway knows the CURVE key by. `magic` is 0 where none is meant.
    """

    v: Count
    id: Name
    client: Name
    magic: Magic


class Ping(Request, frozen=True, kw_only=True, tag="PING"):
    """Is the gateway's network loop alive? Answered also while the terminal hangs. → PONG"""


class SyncAll(Request, frozen=True, kw_only=True, tag="SYNC_ALL"):
    """Account, positions, orders and history read together. → SNAPSHOT

    `whole_account` false: only what carries this magic. `history_since_msc` null: no deals and no closed
    orders.
    """

    whole_account: bool
    history_since_msc: Milliseconds | None


class AccountQuery(Request, frozen=True, kw_only=True, tag="ACCOUNT"):
    """Identity and money of the account. → ACCOUNT_STATE"""


class SymbolQuery(Request, frozen=True, kw_only=True, tag="SYMBOL"):
    """Contract specification of a symbol. → SYMBOL_SPEC"""

    symbol: Symbol


class TickQuery(Request, frozen=True, kw_only=True, tag="TICK"):
    """Latest quote of a symbol. → TICK_STATE"""

    symbol: Symbol


class OrderTerms(Request, frozen=True, kw_only=True, omit_defaults=True):
    """What an order says.

    `price` is the limit or stop price; for MARKET the price the client saw, or null (then the quote that the
    gateway sees before it sends). `max_slippage_points` bounds the distance from that price for MARKET (null:
    no bound of the client's; the gateway's own limit still holds). `expiration_msc` is broker time, null for
    good till cancelled. `expected_profit` is what the sender expects to earn with the order, in account
    currency; it may be left out where the phase of the magic number asks for no minimum.
    """

    symbol: Symbol
    side: Side
    type: Execution
    volume: Volume
    price: Price | None
    sl: Price | None
    tp: Price | None
    max_slippage_points: Points | None
    filling: Filling
    expiration_msc: Milliseconds | None
    expected_profit: Amount | None = None


class OrderCheck(OrderTerms, frozen=True, kw_only=True, tag="ORDER_CHECK"):
    """Would this order pass the gateway's limits and the broker's check? Sends nothing. → CHECK_RESULT"""


class OrderSend(OrderTerms, frozen=True, kw_only=True, tag="ORDER_SEND"):
    """Submit an order once. → ORDER_RESULT

    The same `client_order_id` with the same content gets the first answer again, for ever. `valid_ms` bounds
    the time the order may wait inside the gateway before it is handed to the broker, a freeze included.
    """

    client_order_id: Name
    lease_epoch: Epoch
    valid_ms: ValidMs


class OrderCancel(Request, frozen=True, kw_only=True, tag="ORDER_CANCEL"):
    """Cancel a working order. → ORDER_RESULT (CANCELED only when the broker confirms it)"""

    client_order_id: Name
    lease_epoch: Epoch
    valid_ms: ValidMs
    order: Ticket


class PositionClose(Request, frozen=True, kw_only=True, tag="POSITION_CLOSE"):
    """Close a position, or part of it, at market. `volume` null: all of it. → ORDER_RESULT"""

    client_order_id: Name
    lease_epoch: Epoch
    valid_ms: ValidMs
    position: Ticket
    volume: Volume | None
    max_slippage_points: Points | None


class OrderQuery(Request, frozen=True, kw_only=True, tag="ORDER_QUERY"):
    """What became of a client order id. → ORDER_RESULT, the recorded ERROR, or UNKNOWN_ORDER"""

    client_order_id: Name


class OrderResolve(Request, frozen=True, kw_only=True, tag="ORDER_RESOLVE"):
    """Declare an UNRESOLVED submission not executed, after a person has looked at the broker. → ORDER_RESULT

    Refused until `RESOLVE_AFTER_S` after it was sent, and while the broker's books show anything of it, or
    what could be it under another comment: then `reason` names that ticket, if it is certainly something
    else. It is looked for all the same: what is executed later is the answer then. For one that was answered
    and that the books do not show in time it means: believe the books.
    """

    client_order_id: Name
    reason: Reason


class HistoryQuery(Request, frozen=True, kw_only=True, tag="HISTORY"):
    """Deals and closed orders of this magic since a broker time. → HISTORY_STATE"""

    since_msc: Milliseconds
    limit: HistoryLimit


class LeaseAcquire(Request, frozen=True, kw_only=True, tag="LEASE_ACQUIRE"):
    """Become the one writer of a magic number. → LEASE with a new epoch

    `instance` names this run of the program. The instance that holds the lease gets the same epoch again.
    """

    instance: Name
    ttl_ms: TtlMs


class LeaseRenew(Request, frozen=True, kw_only=True, tag="LEASE_RENEW"):
    """Keep the lease. → LEASE, or FENCED when the epoch is no longer the latest or has run out"""

    instance: Name
    lease_epoch: Epoch
    ttl_ms: TtlMs


class LeaseRelease(Request, frozen=True, kw_only=True, tag="LEASE_RELEASE"):
    """Give the lease back. → LEASE with `ttl_ms` 0"""

    instance: Name
    lease_epoch: Epoch


class Halt(Request, frozen=True, kw_only=True, tag="HALT"):
    """Stop all order flow, of the fleet or of this magic. Survives restarts. → HALT_STATE"""

    scope: HaltScope
    reason: Reason


class Resume(Request, frozen=True, kw_only=True, tag="RESUME"):
    """Lift a halt, on purpose and with a reason. Also closes this magic's circuit breaker. → HALT_STATE"""

    scope: HaltScope
    reason: Reason


class Status(Request, frozen=True, kw_only=True, tag="STATUS"):
    """The gateway's own state: leases, halts, limits, queue. Needs no terminal. → STATUS_STATE"""


class PhaseQuery(Request, frozen=True, kw_only=True, tag="PHASE_QUERY"):
    """Phase of this magic number, what the gateway has recorded in it, and its latest acts. → PHASE_STATE"""


class PhaseSet(Request, frozen=True, kw_only=True, tag="PHASE_SET"):
    """Give the gateway a signed record of a phase (docs/phases.md). → PHASE_STATE

    `record` is the text that was signed, `signature` the armoured one of `ssh-keygen -Y sign`.
    """

    record: SignedText
    signature: SignedText


class PhaseDemote(Request, frozen=True, kw_only=True, tag="PHASE_DEMOTE"):
    """Put this magic number under an earlier phase at once; needs no signature. → PHASE_STATE"""

    profile: ProfileName
    reason: Reason


class PhaseTrading(Request, frozen=True, kw_only=True, tag="PHASE_TRADING"):
    """REDUCING: let this magic number only close, cancel and reduce. ACTIVE: lift that. → PHASE_STATE"""

    state: TradingState
    reason: Reason


AnyRequest = (
    Ping
    | SyncAll
    | AccountQuery
    | SymbolQuery
    | TickQuery
    | OrderCheck
    | OrderSend
    | OrderCancel
    | PositionClose
    | OrderQuery
    | OrderResolve
    | HistoryQuery
    | LeaseAcquire
    | LeaseRenew
    | LeaseRelease
    | Halt
    | Resume
    | Status
    | PhaseQuery
    | PhaseSet
    | PhaseDemote
    | PhaseTrading
)
"""Every request the gateway understands."""

Submission = OrderSend | OrderCancel | PositionClose
"""Requests that may change the broker's books; recorded in the journal."""
