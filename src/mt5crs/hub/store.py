"""What the Hub keeps: deals, closed orders, samples of accounts, events, gaps, alerts, in one SQLite file.

Every deal and closed order is kept once, however often it is read. Identifiers are text: brokers use all 64
bits, which neither SQLite's integers nor JSON's numbers hold.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mt5crs.hub.event_file import EventFile
from mt5crs.protocol.records import Account, Deal, Order
from mt5crs.service import database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS book (
    gateway TEXT NOT NULL, account TEXT NOT NULL, currency TEXT NOT NULL, from_msc INTEGER NOT NULL,
    through_msc INTEGER NOT NULL, PRIMARY KEY (gateway, account)) STRICT;
CREATE TABLE IF NOT EXISTS listening (
    gateway TEXT PRIMARY KEY, first REAL NOT NULL, heard REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS deal (
    id INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL, account TEXT NOT NULL, ticket TEXT NOT NULL,
    magic TEXT NOT NULL, time_msc INTEGER NOT NULL, net REAL, traded INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (gateway, account, ticket)) STRICT;
CREATE INDEX IF NOT EXISTS deal_time ON deal (time_msc);
CREATE INDEX IF NOT EXISTS deal_of ON deal (gateway, account, time_msc);
CREATE TABLE IF NOT EXISTS closed_order (
    id INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL, account TEXT NOT NULL, ticket TEXT NOT NULL,
    magic TEXT NOT NULL, time_msc INTEGER NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (gateway, account, ticket)) STRICT;
CREATE INDEX IF NOT EXISTS closed_order_time ON closed_order (time_msc);
CREATE TABLE IF NOT EXISTS sample (
    gateway TEXT NOT NULL, at REAL NOT NULL, account TEXT NOT NULL, balance REAL, equity REAL, profit REAL,
    margin REAL, PRIMARY KEY (gateway, at)) STRICT;
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, gateway TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS gap (
    id INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    reason TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS alert (id TEXT PRIMARY KEY, until REAL, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS fired (
    id TEXT NOT NULL, began REAL NOT NULL, name TEXT NOT NULL, severity TEXT NOT NULL, host TEXT NOT NULL,
    told REAL NOT NULL, watched INTEGER NOT NULL, over REAL, PRIMARY KEY (id, began)) STRICT;
CREATE TABLE IF NOT EXISTS up (
    day INTEGER NOT NULL, host TEXT NOT NULL, job TEXT NOT NULL, looks INTEGER NOT NULL, up INTEGER NOT NULL,
    PRIMARY KEY (day, host, job)) STRICT;
CREATE TABLE IF NOT EXISTS looks (day INTEGER PRIMARY KEY, seconds REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS acknowledged (
    id TEXT NOT NULL, count INTEGER NOT NULL, at REAL NOT NULL, who TEXT NOT NULL, reason TEXT NOT NULL,
    began REAL, false_alarm INTEGER NOT NULL,
    PRIMARY KEY (id, count)) STRICT;
CREATE TABLE IF NOT EXISTS halt (
    id TEXT PRIMARY KEY, at REAL NOT NULL, done REAL, outcome TEXT NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS letter (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
"""
_LONGEST = 2**63 - 1
_DAY_S = 86_400
_DIGITS = 6
"""More than any currency's or coin's books have."""
_PRUNED_AT_ONCE = 20_000
"""Rows: so that pruning keeps nobody waiting for long."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """For how long, and up to what size, things are kept."""

    trades_days: int
    samples_days: int
    events_days: int
    events: int
    database_bytes: int
    file_bytes: int


class Heard(msgspec.Struct, frozen=True):
    """When a gateway was first and last listened to, in Unix time."""

    first: float
    last: float


class Book(msgspec.Struct, frozen=True):
    """How far an account's history is kept, in the broker's time: from and through which moment."""

    account: str
    currency: str
    from_msc: int
    through_msc: int


class Store:
    """Safe from any thread. Every method raises UnusableError when the file, or its disk, cannot be used."""

    def __init__(self, directory: Path, bounds: Bounds) -> None:
        """Open or create it."""
        self._bounds = bounds
        self._path = directory / "hub.db"
        self._lock = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._db = database.opened(self._path, _SCHEMA, threads=True)
            self._file = EventFile(directory, bounds.file_bytes)
        except database.BrokenError as error:
            raise _damaged(self._path, error.__cause__ or error) from error
        except database.UnusableError:
            raise
        except OSError as error:
            raise database.UnusableError(
                f"STATE_DIR {directory} cannot be used ({error}); make it writable for this user"
            ) from error

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._db.close()
            self._file.close()

    # ---- what a listener keeps ----

    def heard(self, gateway: str) -> Heard | None:
        """When the gateway was listened to; None: never."""
        row = self._one("SELECT first, heard FROM listening WHERE gateway = ?", (gateway,))
        return Heard(*row) if row else None

    def keep_heard(self, gateway: str, at: float) -> None:
        """Note that the gateway was heard at that time."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO listening VALUES (?, ?, ?) "
                "ON CONFLICT (gateway) DO UPDATE SET heard = excluded.heard",
                (gateway, at, at),
            )

    def book(self, gateway: str, account: str) -> Book | None:
        """How far the history of an account is kept; None: not at all."""
        row = self._one(
            "SELECT account, currency, from_msc, through_msc FROM book WHERE gateway = ? AND account = ?",
            (gateway, account),
        )
        return Book(*row) if row else None

    def keep_books(
        self, gateway: str, book: Book, deals: Iterable[Deal], closed: Iterable[Order]
    ) -> tuple[list[Deal], list[Order]]:
        """Keep a stretch of history that joins what is kept already; returns what was new."""
        with self._writing() as db:
            fresh = self._keep_history(db, gateway, book.account, deals, closed)
            db.execute(
                "INSERT INTO book VALUES (?, ?, ?, ?, ?) ON CONFLICT (gateway, account) DO UPDATE SET "
                "currency = excluded.currency, from_msc = min(from_msc, excluded.from_msc), "
                "through_msc = max(through_msc, excluded.through_msc)",
                (gateway, book.account, book.currency, book.from_msc, book.through_msc),
            )
            self._keep_events(
                db,
                [
                    *(made(gateway, "deal", each) for each in fresh[0]),
                    *(made(gateway, "closed_order", each) for each in fresh[1]),
                ],
            )
        return fresh

    def keep_live(
        self,
        gateway: str,
        account: str,
        events: Sequence[dict[str, Any]],
        deals: Iterable[Deal],
        closed: Iterable[Order],
    ) -> None:
        """Keep what was heard: events, and the deals and closed orders among them."""
        with self._writing() as db:
            self._keep_history(db, gateway, account, deals, closed)
            self._keep_events(db, events)

    def keep_sample(self, gateway: str, account: str, at: float, money: Account) -> None:
        """Keep what an account had."""
        figures = (money.balance, money.equity, money.profit, money.margin)
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?, ?)",
                (gateway, at, account, *map(finite, figures)),
            )

    def keep_gap(self, gateway: str, since: float, until: float, reason: str) -> None:
        """Note that nothing was heard of a gateway between two moments."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO gap (gateway, since, until, reason) VALUES (?, ?, ?, ?)",
                (gateway, since, max(since, until), reason),
            )
            told = {"at": until, "gateway": gateway, "kind": "gap", "since": since, "reason": reason}
            self._keep_events(db, [told])

    def keep_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Keep events that come from elsewhere than a listener."""
        with self._writing() as db:
            self._keep_events(db, events)

    def _keep_history(
        self,
        db: sqlite3.Connection,
        gateway: str,
        account: str,
        deals: Iterable[Deal],
        closed: Iterable[Order],
    ) -> tuple[list[Deal], list[Order]]:
        fresh: tuple[list[Deal], list[Order]] = ([], [])
        for deal in deals:
            net = rounded(deal.profit + deal.commission + deal.fee + deal.swap)
            traded = int(deal.type in ("BUY", "SELL"))
            when = min(max(deal.time_msc, 0), _LONGEST)
            row = (gateway, account, str(deal.ticket), str(deal.magic), when, net, traded, _body(deal))
            done = db.execute(
                "INSERT OR IGNORE INTO deal (gateway, account, ticket, magic, time_msc, net, traded, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            if done.rowcount:
                fresh[0].append(deal)
        for order in closed:
            when = min(max(order.time_done_msc, 0), _LONGEST)
            row_of = (gateway, account, str(order.ticket), str(order.magic), when, order.state, _body(order))
            done = db.execute(
                "INSERT OR IGNORE INTO closed_order (gateway, account, ticket, magic, time_msc, state, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                row_of,
            )
            if done.rowcount:
                fresh[1].append(order)
        return fresh

    def _keep_events(self, db: sqlite3.Connection, events: Sequence[dict[str, Any]]) -> None:
        if not events:
            return
        lines = [_json(event) for event in events]
        db.executemany(
            "INSERT INTO event (at, gateway, kind, body) VALUES (?, ?, ?, ?)",
            [
                (event["at"], event["gateway"], event["kind"], line)
                for event, line in zip(events, lines, strict=True)
            ],
        )
        self._file.append(lines)

    # ---- alerts ----

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Every alert that is kept, by id."""
        return {row[0]: json.loads(row[1]) for row in self._all("SELECT id, body FROM alert", ())}

    def keep_alerts(
        self,
        changed: Sequence[Mapping[str, Any]],
        gone: Iterable[str],
        at: float | None = None,
        *,
        watched: bool = False,
    ) -> None:
        """Keep alerts that have changed, forget others.

        at: when that was seen (None: now). watched: somebody looked shortly before, too.
        """
        with self._writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO alert VALUES (?, ?, ?)",
                [(alert["id"], alert["until"], _json(alert)) for alert in changed],
            )
            db.executemany("DELETE FROM alert WHERE id = ?", [(name,) for name in gone])
            for alert in changed:
                if alert["state"] == "firing" and alert["since"] is not None:
                    db.execute(
                        "INSERT OR IGNORE INTO fired VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                        (
                            *(alert["id"], alert["since"], alert["name"], alert["severity"], alert["host"]),
                            time.time() if at is None else at,
                            int(watched),
                        ),
                    )
                elif alert["state"] == "resolved":
                    db.execute(
                        "UPDATE fired SET over = ? WHERE id = ? AND over IS NULL",
                        (alert["until"], alert["id"]),
                    )

    def acknowledge(
        self,
        alert: str,
        count: int,
        at: float,
        who: str,
        reason: str,
        *,
        began: float | None,
        false_alarm: bool,
    ) -> None:
        """Keep who looks after an alert, this time that it fires; the last word counts."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?, ?, ?, ?, ?)",
                (alert, count, at, who, reason, began, int(false_alarm)),
            )
            told = {
                "at": at,
                "gateway": "",
                "kind": "acknowledged",
                "alert": alert,
                "by": who,
                "reason": reason,
            }
            self._keep_events(db, [told])

    def acknowledged(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Who looks after which alert, by its id and how often it had begun to fire."""
        rows = self._all("SELECT id, count, at, who, reason, false_alarm FROM acknowledged", ())
        return {
            (of, count): {"at": at, "by": who, "reason": why, "false_alarm": bool(wrong)}
            for of, count, at, who, why, wrong in rows
        }

    # ---- service levels ----

    def keep_look(self, at: float, seconds: float, up: Mapping[str, Mapping[str, bool]]) -> None:
        """Count a look at the services; it stands for so many seconds."""
        day = int(at // _DAY_S)
        rows = [(day, host, job, int(is_up)) for host, jobs in up.items() for job, is_up in jobs.items()]
        with self._writing() as db:
            db.executemany(
                "INSERT INTO up VALUES (?, ?, ?, 1, ?) ON CONFLICT (day, host, job) DO UPDATE SET "
                "looks = looks + 1, up = up + excluded.up",
                rows,
            )
            db.execute(
                "INSERT INTO looks VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET "
                "seconds = seconds + excluded.seconds",
                (day, seconds),
            )

    def ups(self, since: float, until: float) -> dict[tuple[str, str], tuple[int, int]]:
        """(host, job) → how often it was looked at and was up, on the days (UTC) that begin in between."""
        rows = self._all(
            "SELECT host, job, sum(looks), sum(up) FROM up WHERE day >= ? AND day < ? GROUP BY host, job",
            (math.ceil(since / _DAY_S), math.ceil(until / _DAY_S)),
        )
        return {(host, job): (looks, up) for host, job, looks, up in rows}

    def looked_s(self, since: float, until: float) -> float:
        """For how many seconds of these days anybody looked."""
        row = self._one(
            "SELECT coalesce(sum(seconds), 0.0) FROM looks WHERE day >= ? AND day < ?",
            (math.ceil(since / _DAY_S), math.ceil(until / _DAY_S)),
        )
        return float(row[0]) if row else 0.0

    def fired(self, since: float, until: float) -> list[dict[str, Any]]:
        """Alerts that began to fire in between: when it began, was told, was over (None: not yet)."""
        rows = self._all(
            "SELECT f.id, f.name, f.severity, f.host, f.began, f.told, f.watched, f.over, "
            "a.false_alarm, a.who "
            "FROM fired f LEFT JOIN acknowledged a ON a.id = f.id AND a.began = f.began "
            "WHERE f.told >= ? AND f.told < ? ORDER BY f.told",
            (since, until),
        )
        names = ("id", "name", "severity", "host", "began", "told", "watched", "over", "false_alarm", "by")
        return [dict(zip(names, row, strict=True)) for row in rows]

    # ---- halts that the Hub was asked for ----

    def keep_halt(self, halt: Mapping[str, Any]) -> None:
        """Keep a halt as it is now."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO halt VALUES (?, ?, ?, ?, ?)",
                (halt["id"], halt["at"], halt["done"], halt["outcome"], _json(halt)),
            )
            self._keep_events(db, [{"kind": "halt_asked", **halt}])

    def has_halt(self, cause: str) -> bool:
        """Whether there is a halt of this id."""
        return self._one("SELECT 1 FROM halt WHERE id = ?", (cause,)) is not None

    def halts(self, limit: int, *, due: bool = False) -> list[dict[str, Any]]:
        """The latest halts, newest first; due: only those that no gateway has answered yet."""
        where = "WHERE outcome = 'due' " if due else ""
        rows = self._all(f"SELECT body FROM halt {where}ORDER BY at DESC LIMIT ?", (limit,))  # noqa: S608
        return [json.loads(row[0]) for row in rows]

    # ---- notifications that are to be delivered ----

    def letters(self) -> list[dict[str, Any]]:
        """Every notification that was not accepted yet."""
        return [json.loads(row[0]) for row in self._all("SELECT body FROM letter", ())]

    def keep_letters(self, letters: Iterable[Mapping[str, Any]], gone: Iterable[str] | None) -> None:
        """Keep notifications as they are now, and drop those of these ids; None: all but the ones told."""
        with self._writing() as db:
            if gone is None:
                db.execute("DELETE FROM letter")
            db.executemany("DELETE FROM letter WHERE id = ?", [(name,) for name in gone or ()])
            rows = [(letter["id"], _json(letter)) for letter in letters]
            db.executemany("INSERT OR REPLACE INTO letter VALUES (?, ?)", rows)

    # ---- what is shown ----

    def trades(
        self, *, since_msc: int, after: int, limit: int, newest: bool, gateway: str | None, magic: str | None
    ) -> list[dict[str, Any]]:
        """Deals in the order in which the Hub learned of them, each with its `id`; newest: the last ones."""
        where, values = ["time_msc >= ?", "id > ?"], [since_msc, after]
        for name, wanted in (("gateway", gateway), ("magic", magic)):
            if wanted is not None:
                where.append(f"{name} = ?")
                values.append(wanted)  # type: ignore[arg-type]
        rows = self._all(
            "SELECT id, gateway, account, net, body FROM deal "  # noqa: S608 -- names are ours
            f"WHERE {' AND '.join(where)} ORDER BY id {'DESC' if newest else ''} LIMIT ?",
            (*values, limit),
        )
        rows = rows[::-1] if newest else rows
        return [
            {"id": id_, "gateway": of, "account": account, "net": net, **json.loads(body)}
            for id_, of, account, net, body in rows
        ]

    def realised(self, gateway: str, account: str, since_msc: int) -> tuple[float, int] | None:
        """Result and number of trades since a moment; None when a figure among them is not known."""
        row = self._one(
            "SELECT count(*), count(net), coalesce(sum(net), 0.0) FROM deal "
            "WHERE gateway = ? AND account = ? AND time_msc >= ? AND traded",
            (gateway, account, since_msc),
        )
        count, known, total = row if row else (0, 0, 0.0)
        return (round(total, _DIGITS), count) if count == known else None

    def curve(
        self, gateway: str, account: str, since: float, points: int
    ) -> list[tuple[float, float | None, float | None]]:
        """Samples (time, balance, equity) of an account, oldest first, at most about `points` of them."""
        row = self._one(
            "SELECT count(*) FROM sample WHERE gateway = ? AND account = ? AND at >= ?",
            (gateway, account, since),
        )
        step = max(1, math.ceil((row[0] if row else 0) / points))
        rows = self._all(
            "SELECT at, balance, equity FROM "
            "(SELECT at, balance, equity, row_number() OVER (ORDER BY at) AS n, count(*) OVER () AS total "
            "FROM sample WHERE gateway = ? AND account = ? AND at >= ?) "
            "WHERE n % ? = 0 OR n = total ORDER BY at",
            (gateway, account, since, step),
        )
        return [(at, balance, equity) for at, balance, equity in rows]

    def gaps(self, gateway: str, limit: int, since: float = 0.0) -> list[dict[str, Any]]:
        """The latest times in which a gateway was not listened to, newest first."""
        rows = self._all(
            "SELECT since, until, reason FROM gap WHERE gateway = ? AND until >= ? ORDER BY id DESC LIMIT ?",
            (gateway, since, limit),
        )
        return [{"since": since_, "until": until, "reason": reason} for since_, until, reason in rows]

    # ---- bounds ----

    def size_bytes(self) -> int:
        """Disk space of what is in the database."""
        row = self._one(
            "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), "
            "pragma_freelist_count(), pragma_page_size()",
            (),
        )
        return int(row[0]) if row else 0

    def prune(self, now: float | None = None) -> int:
        """Delete a part of what is too old or too much; returns how many rows. Again until it returns 0."""
        bounds, now = self._bounds, time.time() if now is None else now
        gone = 0
        with self._writing() as db:
            for table, column, before in (
                ("deal", "time_msc", int((now - bounds.trades_days * _DAY_S) * 1000)),
                ("closed_order", "time_msc", int((now - bounds.trades_days * _DAY_S) * 1000)),
                ("sample", "at", now - bounds.samples_days * _DAY_S),
                ("event", "at", now - bounds.events_days * _DAY_S),
                ("gap", "until", now - bounds.events_days * _DAY_S),
                ("alert", "until", now - bounds.events_days * _DAY_S),
                ("fired", "told", now - bounds.events_days * _DAY_S),
                ("up", "day", int(now // _DAY_S) - bounds.trades_days),
                ("looks", "day", int(now // _DAY_S) - bounds.trades_days),
                ("acknowledged", "at", now - bounds.events_days * _DAY_S),
                ("halt", "done", now - bounds.events_days * _DAY_S),
            ):
                gone += _delete(db, table, f"{column} < ?", (before,))
            newest = db.execute("SELECT max(id) FROM event").fetchone()[0] or 0
            gone += _delete(db, "event", "id <= ?", (newest - bounds.events,))
        if gone or self.size_bytes() <= bounds.database_bytes:
            return gone
        for table, order in (
            ("event", "id"),
            ("sample", "at"),
            ("closed_order", "time_msc"),
            ("deal", "time_msc"),
        ):
            with self._writing() as db:
                gone = _delete(db, table, "1 = 1", (), order)
            if gone:
                return gone
        return 0

    # ---- SQLite ----

    def _writing(self) -> _Transaction:
        return _Transaction(self._db, self._lock, self._path)

    def _one(self, query: str, values: Sequence[Any]) -> Any:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchone()
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from error

    def _all(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from error


class _Transaction:
    """All or nothing; what SQLite says against it is told in terms of the file."""

    def __init__(self, db: sqlite3.Connection, lock: threading.Lock, path: Path) -> None:
        self._db, self._lock, self._path = db, lock, path

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._lock.release()
            raise _unusable(self._path, error) from error
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
                return
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as failed:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _unusable(self._path, failed) from failed
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise _unusable(self._path, error) from error
        if isinstance(error, OSError) and not isinstance(error, database.UnusableError):
            raise database.UnusableError(
                f"{self._path.parent} cannot be written ({error}): free space on its disk"
            ) from error


def _unusable(path: Path, error: Exception) -> database.UnusableError:
    found = database.unusable(path, error)
    return _damaged(path, error) if isinstance(found, database.BrokenError) else found


def _damaged(path: Path, error: BaseException) -> database.BrokenError:
    """Nothing trades by this file, and most of it can be read again."""
    return database.BrokenError(
        f"{path} is damaged ({error}): move it, its -wal and its -shm aside and restart mt5crs-hub; deals "
        "and closed orders are read again from the brokers' books"
    )


def _delete(
    db: sqlite3.Connection, table: str, where: str, values: tuple[Any, ...], order: str = "rowid"
) -> int:
    # `sample` and `alert` have rowids, too: SQLite gives every table one that is not WITHOUT ROWID.
    return db.execute(
        f"DELETE FROM {table} WHERE rowid IN "  # noqa: S608 -- names are ours
        f"(SELECT rowid FROM {table} WHERE {where} ORDER BY {order} LIMIT ?)",
        (*values, _PRUNED_AT_ONCE),
    ).rowcount


def made(gateway: str, kind: str, record: msgspec.Struct) -> dict[str, Any]:
    """An event about a record of the protocol."""
    return {"at": time.time(), "gateway": gateway, "kind": kind, kind: plain(record)}


def plain(record: msgspec.Struct) -> dict[str, Any]:
    """A record with what JSON cannot hold as text (identifiers) or null (what is no number)."""
    return {
        name: str(value)
        if name in ("ticket", "order", "position_id", "magic", "identifier")
        else finite(value)
        if isinstance(value, float)
        else value
        for name, value in msgspec.structs.asdict(record).items()
    }


def finite(value: float) -> float | None:
    """The number; None when it is none."""
    return value if math.isfinite(value) else None


def rounded(money: float) -> float | None:
    """A sum of money without what binary fractions add to it; None when it is no number."""
    return round(money, _DIGITS) if math.isfinite(money) else None


def _body(record: msgspec.Struct) -> str:
    return _json(plain(record))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
