"""What the reconciler compares: its own record on one side, the broker's evidence on the other."""

from __future__ import annotations

import math

import msgspec

from mt5crs.protocol.digest import state_digest
from mt5crs.protocol.records import Deal, Order, Position
from mt5crs.protocol.replies import Snapshot

UNITS_PER_LOT = 10**8


def units(lots: float) -> int:
    """Lots as a whole number of 1e-8 lots, so that sums of fills are exact.

    0 for what is no number: such a record of ours is not believed at all, others' do not count here.
    """
    return round(lots * UNITS_PER_LOT) if math.isfinite(lots) else 0


def lots(units_: int) -> float:
    """Units as lots."""
    return units_ / UNITS_PER_LOT


def signed_units(item: Position | Deal) -> int:
    """Volume with its sign (buy positive, sell negative) in units; 0 for a deal that is not a trade."""
    if item.type == "BUY":
        return units(item.volume)
    return -units(item.volume) if item.type == "SELL" else 0


class Evidence(msgspec.Struct, frozen=True):
    """One consistent snapshot of the broker, split by whose it is."""

    login: int
    magic: int
    time_msc: int
    positions: tuple[Position, ...]
    orders: tuple[Order, ...]
    deals: tuple[Deal, ...]
    """Of all magic numbers, since the time asked for."""
    closed_orders: tuple[Order, ...]
    external: tuple[Position, ...]
    """Positions that carry another magic number."""
    unresolved: tuple[str, ...]
    """Client order ids whose fate the gateway does not know."""
    deals_known: bool = True
    """False when the peer cannot show deals (a legacy gateway): changes are then reported, not proven."""


def evidence_of(snapshot: Snapshot, magic: int) -> Evidence:
    """Split a whole-account snapshot by magic number."""
    return Evidence(
        login=snapshot.identity.login,
        magic=magic,
        time_msc=snapshot.time_msc,
        positions=tuple(_displayable(p) for p in snapshot.positions if p.magic == magic),
        orders=tuple(o for o in snapshot.orders if o.magic == magic),
        deals=tuple(snapshot.deals),
        closed_orders=tuple(snapshot.closed_orders),
        external=tuple(p for p in snapshot.positions if p.magic != magic),
        unresolved=tuple(snapshot.unresolved),
    )


def _displayable(position: Position) -> Position:
    """Without what is no number among that which moves with the market: nothing rests on it, and the record
    and the published state have no way to say it.
    """
    if math.isfinite(position.price_current + position.profit + position.swap):
        return position
    return msgspec.structs.replace(
        position,
        **{
            name: 0.0
            for name in ("price_current", "profit", "swap")
            if not math.isfinite(getattr(position, name))
        },
    )


class LocalState(msgspec.Struct, frozen=True):
    """What the reconciler holds for true, durable between runs."""

    login: int
    magic: int
    positions: tuple[Position, ...]
    orders: tuple[Order, ...]
    external: tuple[int, ...]
    """Identifiers of foreign positions already reported."""
    applied_deals: tuple[tuple[int, int], ...]
    """(time_msc, ticket) of the deals applied since `known_from_msc`."""
    through_msc: int
    """Time of the newest deal or ended order that is applied, or of the snapshot if that is earlier; late
    ones come within the overlap.
    """
    known_from_msc: int = 0
    """From when on every deal that is applied is among `applied_deals`; 0 in a record of an older release."""
    unexplained: bool = False
    """Whether the last comparison left a difference: the next one looks further back."""

    @property
    def digest(self) -> str:
        """Digest of positions and orders, comparable with the gateway's and other reconcilers'."""
        return state_digest(self.positions, self.orders, self.magic)


class Event(msgspec.Struct, frozen=True, order=True):
    """Something that happened at the broker. The id follows from the broker's own numbers, so that seeing the
    same thing twice yields the same id, whatever process sees it.
    """

    id: str
    kind: str
    detail: str


class Discrepancy(msgspec.Struct, frozen=True, order=True):
    """A difference that the evidence does not explain. `key` is stable while the difference lasts."""

    key: str
    detail: str


class Comparison(msgspec.Struct, frozen=True):
    """Outcome of one comparison."""

    state: LocalState
    events: tuple[Event, ...]
    discrepancies: tuple[Discrepancy, ...]
    broker_positions: int
    differing_positions: int

    @property
    def accuracy(self) -> float:
        """Share of the broker's positions that the record holds exactly (1.0 when there are none)."""
        if self.differing_positions == 0:
            return 1.0
        return max(0.0, 1 - self.differing_positions / max(1, self.broker_positions))
