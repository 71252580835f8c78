"""The simulated broker's books on disk: its own SQLite file, committed apart from the gateway's journal.

Rows are JSON so that a person (or a test) can read them with any SQLite tool while the broker runs.
"""

import sqlite3
from pathlib import Path
from typing import TypeVar

import msgspec

from mt5crs.protocol.records import Deal, Order, Position

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS positions (identifier INTEGER PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS orders (ticket INTEGER PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deals (ticket INTEGER PRIMARY KEY, time_msc INTEGER NOT NULL,
    position_id INTEGER NOT NULL, data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS deals_time ON deals (time_msc);
CREATE INDEX IF NOT EXISTS deals_position ON deals (position_id);
CREATE TABLE IF NOT EXISTS closed_orders (ticket INTEGER PRIMARY KEY, time_msc INTEGER NOT NULL,
    data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS closed_orders_time ON closed_orders (time_msc);
"""

_T = TypeVar("_T")


class Changes(msgspec.Struct, kw_only=True):
    """What one operation did to the books; written in one transaction."""

    positions: dict[int, Position | None] = msgspec.field(default_factory=dict)
    orders: dict[int, Order | None] = msgspec.field(default_factory=dict)
    deals: list[Deal] = msgspec.field(default_factory=list)
    closed_orders: list[Order] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.positions or self.orders or self.deals or self.closed_orders)


class Store:
    """Reads and writes the books."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Open or create. `durable` false trades safety against power loss for speed (tests in memory)."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA journal_mode={'WAL' if durable else 'MEMORY'}")
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def meta(self) -> dict[str, float]:
        """Balance and next ticket number."""
        return dict(self._db.execute("SELECT key, value FROM meta").fetchall())

    def positions(self) -> list[Position]:
        """All open positions."""
        return self._rows(Position, "SELECT data FROM positions ORDER BY identifier")

    def orders(self) -> list[Order]:
        """All working orders."""
        return self._rows(Order, "SELECT data FROM orders ORDER BY ticket")

    def deals(self, since_msc: int) -> list[Deal]:
        """Deals at or after a time."""
        return self._rows(
            Deal, "SELECT data FROM deals WHERE time_msc >= ? ORDER BY time_msc, ticket", since_msc
        )

    def deals_of_position(self, identifier: int) -> list[Deal]:
        """Deals of a position."""
        return self._rows(Deal, "SELECT data FROM deals WHERE position_id = ? ORDER BY ticket", identifier)

    def closed_orders(self, since_msc: int) -> list[Order]:
        """Orders that ended at or after a time."""
        return self._rows(
            Order, "SELECT data FROM closed_orders WHERE time_msc >= ? ORDER BY time_msc, ticket", since_msc
        )

    def write(self, changes: Changes, meta: dict[str, float]) -> None:
        """One transaction: all of it or nothing."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for identifier, position in changes.positions.items():
                if position is None:
                    db.execute("DELETE FROM positions WHERE identifier = ?", (identifier,))
                else:
                    db.execute("REPLACE INTO positions VALUES (?, ?)", (identifier, _json(position)))
            for ticket, order in changes.orders.items():
                if order is None:
                    db.execute("DELETE FROM orders WHERE ticket = ?", (ticket,))
                else:
                    db.execute("REPLACE INTO orders VALUES (?, ?)", (ticket, _json(order)))
            for deal in changes.deals:
                db.execute(
                    "INSERT INTO deals VALUES (?, ?, ?, ?)",
                    (deal.ticket, deal.time_msc, deal.position_id, _json(deal)),
                )
            for order in changes.closed_orders:
                db.execute(
                    "REPLACE INTO closed_orders VALUES (?, ?, ?)",
                    (order.ticket, order.time_done_msc, _json(order)),
                )
            db.executemany("REPLACE INTO meta VALUES (?, ?)", list(meta.items()))
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _rows(self, kind: type[_T], query: str, *arguments: object) -> list[_T]:
        decoder = msgspec.json.Decoder(kind)
        return [decoder.decode(data) for (data,) in self._db.execute(query, arguments)]


def _json(record: Position | Order | Deal) -> str:
    return msgspec.json.encode(record).decode()
