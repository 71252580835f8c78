"""What a gateway's books look like now: a snapshot, and the events after it. Pure."""

from __future__ import annotations

from mt5crs.protocol.events import (
    AccountEvent,
    AnyEvent,
    ControlEvent,
    OrderEvent,
    PositionClosedEvent,
    PositionEvent,
)
from mt5crs.protocol.records import Account, HaltInfo, Identity, Order, Position
from mt5crs.protocol.replies import Snapshot

_ENDED = frozenset({"CANCELED", "FILLED", "REJECTED", "EXPIRED"})


class Picture:
    """Account, positions, working orders and halts of one gateway. Prices are those of the last snapshot."""

    def __init__(self, snapshot: Snapshot, at: float) -> None:
        """`at`: Unix time at which the snapshot was read."""
        self.identity: Identity = snapshot.identity
        self.account: Account = snapshot.account
        self.positions: dict[int, Position] = {each.identifier: each for each in snapshot.positions}
        self.orders: dict[int, Order] = {each.ticket: each for each in snapshot.orders}
        self.halts: list[HaltInfo] = list(snapshot.halts)
        self.read_at = at
        self.account_at = at
        self.broker_time_msc = snapshot.time_msc

    def take(self, event: AnyEvent, at: float) -> None:
        """Make the change that an event tells of."""
        if isinstance(event, AccountEvent):
            self.identity, self.account = event.identity, event.account
            self.account_at, self.broker_time_msc = at, event.time_msc
        elif isinstance(event, ControlEvent):
            self.halts = list(event.halts)
        elif isinstance(event, PositionEvent):
            self.positions[event.position.identifier] = event.position
        elif isinstance(event, PositionClosedEvent):
            self.positions.pop(event.identifier, None)
        elif isinstance(event, OrderEvent):
            if event.order.state in _ENDED:
                self.orders.pop(event.order.ticket, None)
            else:
                self.orders[event.order.ticket] = event.order


def account_of(identity: Identity) -> str:
    """What tells one account from another: a gateway may be given another one."""
    return f"{identity.login}@{identity.server}"
