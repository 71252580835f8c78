"""Events on the PUB socket: two frames, topic and msgpack map.

Each topic counts its own `seq` from 1 within one `stream` (one run of the gateway). A gap, or another
`stream`, means that something was missed: take a snapshot. Heartbeats carry the last `seq` of every topic but
ticks, so a lost last event is noticed too. Topics end in a dot where one could be the beginning of another;
compare them exactly.
"""

from msgspec import Struct

from .fields import Count, Milliseconds
from .records import Account, Deal, HaltInfo, Identity, LeaseInfo, Order, Position, Tick

HEARTBEAT_TOPIC = "heartbeat"
ACCOUNT_TOPIC = "account"
CONTROL_TOPIC = "control"


def trade_topic(magic: int) -> str:
    """Topic of order, deal and position events of a magic number."""
    return f"trade.{magic}."


def tick_topic(symbol: str) -> str:
    """Topic of a symbol's quotes."""
    return f"tick.{symbol}."


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every event carries."""

    v: Count
    stream: str
    seq: Count


class Heartbeat(Event, frozen=True, kw_only=True, tag="HEARTBEAT"):
    """Sent every `interval_ms`, also while the terminal hangs. `state` as in STATUS."""

    time_msc: Milliseconds
    interval_ms: Count
    state: str
    seqs: dict[str, int]


class AccountEvent(Event, frozen=True, kw_only=True, tag="ACCOUNT_EVENT"):
    """Money or identity changed."""

    time_msc: Milliseconds
    identity: Identity
    account: Account


class ControlEvent(Event, frozen=True, kw_only=True, tag="CONTROL_EVENT"):
    """A halt, resume or lease change; holds the whole new state."""

    halts: list[HaltInfo]
    leases: list[LeaseInfo]


class OrderEvent(Event, frozen=True, kw_only=True, tag="ORDER_EVENT"):
    """A working order is new or changed; with a closing state it is gone from the working orders."""

    order: Order


class DealEvent(Event, frozen=True, kw_only=True, tag="DEAL_EVENT"):
    """A deal was made."""

    deal: Deal


class PositionEvent(Event, frozen=True, kw_only=True, tag="POSITION_EVENT"):
    """A position is new or changed (not by its profit or current price alone)."""

    position: Position


class PositionClosedEvent(Event, frozen=True, kw_only=True, tag="POSITION_CLOSED_EVENT"):
    """A position is no longer open."""

    magic: int
    identifier: int


class TickEvent(Event, frozen=True, kw_only=True, tag="TICK_EVENT"):
    """A new quote."""

    tick: Tick


AnyEvent = (
    Heartbeat
    | AccountEvent
    | ControlEvent
    | OrderEvent
    | DealEvent
    | PositionEvent
    | PositionClosedEvent
    | TickEvent
)
"""Every event on the PUB socket."""
