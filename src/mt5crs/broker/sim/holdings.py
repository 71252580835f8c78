"""What the simulated broker has on its books: in memory, written through to disk in one transaction per
operation.
"""

import sqlite3
from collections.abc import Callable

import msgspec

from mt5crs.broker.interface import BrokerError, TradeRequest
from mt5crs.protocol.fields import OrderState
from mt5crs.protocol.records import Deal, Order, Position

from .clock import BrokerClock
from .matching import REASON_CLIENT, Fill, apply_fill, side_of
from .store import Changes, Store
from .symbols import CONTRACTS

FIRST_TICKET = 100_000


class Holdings:
    """Positions, working orders, balance and tickets. Changes count when they are committed."""

    def __init__(
        self, store: Store, clock: BrokerClock, committed: Callable[[], None], *, netting: bool
    ) -> None:
        """`committed` is called after every commit that changed something."""
        self._store = store
        self._clock = clock
        self._committed = committed
        self._netting = netting
        self.positions: dict[int, Position] = {}
        """By identifier; always the same dictionary."""
        self.orders: dict[int, Order] = {}
        """Working orders by ticket; always the same dictionary."""
        self.balance = 0.0
        self.filled_at: dict[int, int] = {}
        """When each order that is filled in part was, by the clock that goes on."""
        self.version = 1
        """Grows with every commit."""
        self._next_ticket = FIRST_TICKET
        self._changes = Changes()

    def load(self) -> bool:
        """Take the books from disk; False when they are new."""
        positions, orders, meta = self._store.positions(), self._store.orders(), self._store.meta()
        self.positions.clear()
        self.positions.update({p.identifier: p for p in positions})
        self.orders.clear()
        self.orders.update({o.ticket: o for o in orders})
        self.balance = meta.get("balance", 0.0)
        self._next_ticket = int(meta.get("next_ticket", FIRST_TICKET))
        self._clock.shift = int(meta.get("shift_ms", 0))
        return bool(meta)

    def ticket(self) -> int:
        """The next number."""
        self._next_ticket += 1
        return self._next_ticket - 1

    def new_order(self, request: TradeRequest, reason: int) -> Order:
        """An order with a ticket of its own, not on the book yet."""
        return Order(
            ticket=self.ticket(),
            symbol=request.symbol,
            type=request.type,
            state="PLACED",
            magic=request.magic,
            position_id=request.position,
            volume_initial=request.volume,
            volume_current=request.volume,
            price_open=request.price,
            sl=request.sl,
            tp=request.tp,
            time_setup_msc=self._clock.stamp(),
            time_done_msc=0,
            expiration_msc=request.expiration_msc,
            reason=reason,
            comment=request.comment,
        )

    def put(self, order: Order) -> None:
        """On the book, or changed there."""
        self.orders[order.ticket] = order
        self._changes.orders[order.ticket] = order

    def end(self, order: Order, state: OrderState) -> None:
        """Off the book, into the history."""
        self.filled_at.pop(order.ticket, None)
        if self.orders.pop(order.ticket, None) is not None:
            self._changes.orders[order.ticket] = None
        self._changes.closed_orders.append(
            msgspec.structs.replace(order, state=state, time_done_msc=self._clock.stamp())
        )

    def fill(self, order: Order, volume: float, price: float, *, position: int) -> Deal:
        """Fill so much of an order: deal, position and balance."""
        contract = CONTRACTS[order.symbol]
        outcome = apply_fill(
            self.positions.values(),
            Fill(
                order=order.ticket,
                deal=self.ticket(),
                symbol=order.symbol,
                side=side_of(order.type),
                volume=volume,
                price=price,
                magic=order.magic,
                position=position,
                sl=order.sl,
                tp=order.tp,
                reason=order.reason,
                comment=order.comment,
                time_msc=self._clock.stamp(),
            ),
            contract,
            netting=self._netting,
        )
        if outcome.position is None:
            self.positions.pop(outcome.identifier, None)
        else:
            self.positions[outcome.identifier] = outcome.position
        self._changes.positions[outcome.identifier] = outcome.position
        self._changes.deals.append(outcome.deal)
        self.balance = round(self.balance + outcome.deal.profit + outcome.deal.commission, 2)
        return outcome.deal

    def deposit(self, amount: float) -> None:
        """Money comes in, as a deal."""
        self.balance = round(self.balance + amount, 2)
        self._changes.deals.append(
            Deal(
                ticket=self.ticket(),
                order=0,
                position_id=0,
                symbol="",
                type="BALANCE",
                entry="IN",
                magic=0,
                volume=0.0,
                price=0.0,
                commission=0.0,
                fee=0.0,
                swap=0.0,
                profit=amount,
                time_msc=self._clock.advance() + self._clock.shift,
                reason=REASON_CLIENT,
                comment="deposit",
            )
        )

    def commit(self) -> None:
        """Write what has changed. Raises BrokerError: then nothing of it has happened."""
        if not self._changes:
            return
        changes, self._changes = self._changes, Changes()
        self.version += 1
        try:
            self._store.write(changes, self.meta())
        except sqlite3.Error as error:
            self.load()  # what could not be written did not happen
            raise BrokerError(-10000, f"the simulated broker could not write its books: {error}") from error
        self._committed()

    def meta(self) -> dict[str, float]:
        """What is kept beside the records."""
        meta = {"balance": self.balance, "next_ticket": float(self._next_ticket)}
        return {**meta, "shift_ms": float(self._clock.shift)}
