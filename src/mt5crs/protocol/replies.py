"""Replies. Each carries the id of its request, so that a late one can be told apart and dropped."""

from typing import Annotated

from msgspec import Meta, Struct

from .fields import (
    Count,
    ErrorCode,
    Magic,
    Milliseconds,
    NonNegative,
    Outcome,
    Text,
    TicketOrZero,
)
from .records import (
    Account,
    Deal,
    GuardInfo,
    HaltInfo,
    Identity,
    LeaseInfo,
    Order,
    PhaseAct,
    PhaseFact,
    Position,
    SymbolSpec,
    Tick,
)

Message = Annotated[str, Meta(max_length=1024)]


class Reply(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every reply carries. `id` is empty only when the request's own id could not be read."""

    v: Count
    id: str


class Error(Reply, frozen=True, kw_only=True, tag="ERROR"):
    """A refusal. Nothing was changed by the request it answers.

    `field` names the key, limit or flag at fault ("" if none). `retry_ms` null: the same request will not
    succeed later. `final` true: recorded in the journal, the client order id is spent and always gets this
    answer.
    """

    code: ErrorCode
    field: str
    message: Message
    remedy: Message
    retry_ms: Count | None
    final: bool


class Pong(Reply, frozen=True, kw_only=True, tag="PONG"):
    """`time_msc` is the gateway's wall clock, `stream` names this run of the gateway."""

    time_msc: Milliseconds
    stream: str


class Snapshot(Reply, frozen=True, kw_only=True, tag="SNAPSHOT"):
    """Everything read in one go from the terminal.

    `digest` is `state_digest` over positions and orders of `magic`. `seqs` holds, per PUB topic, the last
    event already contained in this snapshot. `unresolved` lists client order ids of `magic` whose fate is not
    known: the state is not settled until it is empty. `time_msc` is the broker's clock and the right start of
    the next `history_since_msc`.
    """

    magic: Magic
    whole_account: bool
    stream: str
    seqs: dict[str, int]
    time_msc: Milliseconds
    identity: Identity
    account: Account
    positions: list[Position]
    orders: list[Order]
    deals: list[Deal]
    closed_orders: list[Order]
    history_complete: bool
    unresolved: list[str]
    halts: list[HaltInfo]
    digest: str


class AccountState(Reply, frozen=True, kw_only=True, tag="ACCOUNT_STATE"):
    """Answer to ACCOUNT."""

    time_msc: Milliseconds
    identity: Identity
    account: Account


class SymbolReply(Reply, frozen=True, kw_only=True, tag="SYMBOL_SPEC"):
    """Answer to SYMBOL."""

    spec: SymbolSpec


class TickReply(Reply, frozen=True, kw_only=True, tag="TICK_STATE"):
    """Answer to TICK."""

    tick: Tick


class CheckResult(Reply, frozen=True, kw_only=True, tag="CHECK_RESULT"):
    """Answer to ORDER_CHECK. `retcode` 0 means the broker would accept it; the gateway's refusals come as
    ERROR.
    """

    retcode: Count
    comment: str
    margin: float
    margin_free: float


class OrderResult(Reply, frozen=True, kw_only=True, tag="ORDER_RESULT"):
    """What became of a submission.

    `volume` and `price` are what was filled (0 if nothing). `evidence` says where the answer comes from:
    "reply" of the broker, "books" of the broker read afterwards, "gateway" (dry run), or "none" while
    UNRESOLVED. `replayed` true: this is the recorded answer to an earlier request. Events up to `seq` of the
    magic's trade topic are out and hold its effect. `position` is the position's identifier.
    """

    client_order_id: str
    outcome: Outcome
    retcode: Count
    message: Text
    order: TicketOrZero
    deals: list[int]
    position: TicketOrZero
    position_ticket: TicketOrZero
    volume_requested: NonNegative
    volume: NonNegative
    price: float
    comment_id: str
    epoch: Count
    evidence: Text
    replayed: bool
    time_msc: Milliseconds
    stream: str
    seq: Count


class HistoryState(Reply, frozen=True, kw_only=True, tag="HISTORY_STATE"):
    """Answer to HISTORY. `complete` false: there is more; ask again from the last time."""

    time_msc: Milliseconds
    deals: list[Deal]
    closed_orders: list[Order]
    complete: bool


class Lease(Reply, frozen=True, kw_only=True, tag="LEASE"):
    """A lease in force for `ttl_ms` from when the *request was sent*: count from then and stop before it
    ends.
    """

    magic: Magic
    epoch: Count
    ttl_ms: Count
    instance: str


class HaltState(Reply, frozen=True, kw_only=True, tag="HALT_STATE"):
    """Halts in force now. `in_flight` counts submissions already in the broker's hands when the halt took
    effect.
    """

    halts: list[HaltInfo]
    in_flight: Count


class StatusState(Reply, frozen=True, kw_only=True, tag="STATUS_STATE"):
    """Answer to STATUS. `state` is "ready", "not_ready" (reason says why) or "terminal_hung"."""

    version: str
    protocol_min: Count
    protocol_max: Count
    stream: str
    uptime_ms: Count
    state: str
    reason: str
    identity: Identity | None
    queue_length: Count
    queue_limit: Count
    leases: list[LeaseInfo]
    halts: list[HaltInfo]
    guards: list[GuardInfo]


class PhaseState(Reply, frozen=True, kw_only=True, tag="PHASE_STATE"):
    """Phase of a magic number.

    `enforced` false: this gateway uses no phases, and `profile` is empty. `trading` is ACTIVE, REDUCING or
    HALTED, `why` what led to it. `serial` is that of the latest record or demotion: the next record needs a
    higher one. `expires_in_ms` null: the phase does not end by itself. `obstacle`: why the broker's contracts
    allow no order of this phase; empty if they do.
    """

    magic: Magic
    account: str
    enforced: bool
    profile: str
    phase: Count
    trading: str
    why: str
    serial: Count
    expires_in_ms: Count | None
    obstacle: str
    facts: list[PhaseFact]
    acts: list[PhaseAct]


AnyReply = (
    Error
    | Pong
    | Snapshot
    | AccountState
    | SymbolReply
    | TickReply
    | CheckResult
    | OrderResult
    | HistoryState
    | Lease
    | HaltState
    | StatusState
    | PhaseState
)
"""Every reply a client can get."""
