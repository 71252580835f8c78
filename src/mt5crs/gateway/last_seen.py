"""What was there when this gateway last looked, kept over its restarts. Used by the terminal's thread.

A terminal that has just started may show a part of its lists, and that looks like an account with less in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from mt5crs.broker.interface import Books
from mt5crs.protocol.records import Order, Position

from .journal import Journal, Sighting
from .ledger import DAY_MS
from .watch import order_shape, shape


class LastSeen:
    """Positions and working orders of our magic numbers, and what each had earned on which day."""

    def __init__(self, journal: Journal) -> None:
        """Take what the last process wrote."""
        self._journal = journal
        self._positions: dict[int, Position] = {}
        self._orders: dict[int, Order] = {}
        self._results: dict[int, tuple[int, float]] = {}
        for kind, key, data in journal.sightings():
            try:
                if kind == "position":
                    self._positions[key] = msgspec.msgpack.decode(data, type=Position)
                elif kind == "order":
                    self._orders[key] = msgspec.msgpack.decode(data, type=Order)
                else:
                    self._results[key] = msgspec.msgpack.decode(data, type=tuple[int, float])
            except msgspec.DecodeError:  # of another release: not known then
                continue

    def among(self, books: Books) -> tuple[Books, Books] | None:
        """The account as it was last seen, and what these books show of that; None when nothing was open."""
        if not (self._positions or self._orders):
            return None
        return (
            msgspec.structs.replace(
                books, positions=list(self._positions.values()), orders=list(self._orders.values())
            ),
            msgspec.structs.replace(
                books,
                positions=[p for p in books.positions if p.identifier in self._positions],
                orders=[o for o in books.orders if o.ticket in self._orders],
            ),
        )

    def earned(self, magic: int, now_msc: int) -> float | None:
        """What a magic number's deals had earned on this day of the broker; None: not known."""
        day, earned = self._results.get(magic, (-1, 0.0))
        return earned if day == now_msc // DAY_MS else None

    def keep(self, books: Books, results: Mapping[int, float]) -> None:
        """Write down the account as it is now, without waiting for the disk. `results`: realised on this day,
        by magic number; theirs are the positions and orders that are kept. Raises JournalError.
        """
        positions = {p.identifier: p for p in books.positions if p.magic in results}
        orders = {o.ticket: o for o in books.orders if o.magic in results}
        earned = {magic: (books.time_msc // DAY_MS, each) for magic, each in results.items()}
        changes = [
            *(_sighting("position", key, positions.get(key)) for key in self._other_positions(positions)),
            *(_sighting("order", key, orders.get(key)) for key in self._other_orders(orders)),
            *(
                _sighting("result", key, each)
                for key, each in earned.items()
                if self._results.get(key) != each
            ),
        ]
        if changes:
            self._journal.saw(changes)
        self._positions, self._orders, self._results = positions, orders, earned

    def after(self, books: Books, tickets: Collection[int], magic: int) -> list[Sighting]:
        """What an answer that these books show has changed, to be written together with the answer.
        `tickets`: of positions and orders. It counts as seen from now on (what could not be written is
        settled once more).
        """
        found: list[Sighting] = []
        for key in tickets:
            position = next((p for p in books.positions if p.identifier == key and p.magic == magic), None)
            order = next((o for o in books.orders if o.ticket == key and o.magic == magic), None)
            if position is not None or key in self._positions:
                found.append(_sighting("position", key, position))
                _put(self._positions, key, position)
            if order is not None or key in self._orders:
                found.append(_sighting("order", key, order))
                _put(self._orders, key, order)
        return found

    def _other_positions(self, now: Mapping[int, Position]) -> list[int]:
        known = self._positions
        return [
            key
            for key in known.keys() | now.keys()
            if key not in known or key not in now or shape(known[key]) != shape(now[key])
        ]

    def _other_orders(self, now: Mapping[int, Order]) -> list[int]:
        known = self._orders
        return [
            key
            for key in known.keys() | now.keys()
            if key not in known or key not in now or order_shape(known[key]) != order_shape(now[key])
        ]


def _put(known: dict[int, Position] | dict[int, Order], key: int, record: Position | Order | None) -> None:
    if record is None:
        known.pop(key, None)
    else:
        known[key] = record  # type: ignore[assignment]


def _sighting(kind: str, key: int, record: Position | Order | tuple[int, float] | None) -> Sighting:
    return kind, key, None if record is None else msgspec.msgpack.encode(record)
