"""The durable record of every submission: what was sent under which client order id, and what became of it.

A row is written, synced, *before* the broker is called (state "sent") and again when the outcome is known.
Intent and sending are one row and one sync: nothing that can change the broker's books lies between them.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from mt5crs.protocol.identifiers import comment_id
from mt5crs.protocol.replies import Error, OrderResult
from mt5crs.protocol.requests import OrderCancel, OrderSend, PositionClose, Submission
from mt5crs.service import database
from mt5crs.service.elapsed import elapsed_s

_SCHEMA = """
CREATE TABLE IF NOT EXISTS submissions (
    account TEXT NOT NULL, magic INTEGER NOT NULL, client_order_id TEXT NOT NULL,
    client TEXT NOT NULL, epoch INTEGER NOT NULL, fingerprint TEXT NOT NULL, comment_id TEXT NOT NULL,
    request TEXT NOT NULL, state TEXT NOT NULL, sent_msc INTEGER NOT NULL, answer TEXT NOT NULL,
    PRIMARY KEY (account, magic, client_order_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS submissions_open ON submissions (account) WHERE state = 'sent';
CREATE INDEX IF NOT EXISTS submissions_told ON submissions (account) WHERE state = 'told';
CREATE INDEX IF NOT EXISTS submissions_refused ON submissions (account, magic, sent_msc)
    WHERE state = 'refused';
CREATE INDEX IF NOT EXISTS submissions_declared ON submissions (account) WHERE state = 'declared';
CREATE TABLE IF NOT EXISTS failures (account TEXT, magic INTEGER, count INTEGER NOT NULL,
    PRIMARY KEY (account, magic));
CREATE TABLE IF NOT EXISTS sightings (account TEXT, kind TEXT, key INTEGER, record BLOB NOT NULL,
    PRIMARY KEY (account, kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS restorations (backup TEXT NOT NULL, since_msc INTEGER NOT NULL,
    restored_msc INTEGER NOT NULL);
"""
Sighting = tuple[str, int, bytes | None]
"""Kind, number and content of a record as last seen at the broker; None: it is not there any more."""
State = Literal["sent", "told", "done", "declared", "refused"]
"""`told`: answered, but the broker's books do not show all of it yet. `declared`: not executed, says a
person; the books may still show that it was. `refused`: never sent, whatever the reason (a dry run, too).
"""
_requests: "msgspec.json.Decoder[Submission]" = msgspec.json.Decoder(OrderSend | OrderCancel | PositionClose)
_answers: "msgspec.json.Decoder[OrderResult | Error]" = msgspec.json.Decoder(OrderResult | Error)


UNSENT_KEPT = 10_000
"""Of each magic number: a client that sends refused orders in a loop must not fill the disk."""
_FORGET_EVERY = 1000
_RESTORED_FOR_MS = 24 * 3600_000
"""So long after a restoration the broker's books are searched for an unknown id before it is sent."""


_BEFORE_MS = 26 * 3600_000
"""So far back the books are searched for what a lost journal had sent: a day, and what clocks differ."""
_NO_BACKUP = ""
"""In place of a backup's name: the journal was not restored, it began at nothing."""
_RESTORATIONS = "SELECT since_msc, restored_msc, backup FROM restorations"


class JournalError(Exception):
    """The journal could not be written (disk full, I/O error): nothing may be sent."""


class Entry(Struct, frozen=True, kw_only=True):
    """One submission. `sent_msc` is the broker's clock when it was sent; when it was refused, this host's
    (so that the broker need not be asked). `answer` None while unresolved.
    """

    request: Submission
    fingerprint: str
    comment_id: str
    state: State
    sent_msc: int
    answer: OrderResult | Error | None


def fingerprint(request: Submission) -> str:
    """Content of a submission without what may differ in a retry: request id, epoch, time it may wait."""
    content = msgspec.to_builtins(request)
    for name in ("id", "lease_epoch", "valid_ms"):
        del content[name]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def new_entry(request: Submission, state: State, sent_msc: int, answer: Error | None = None) -> Entry:
    """An entry for a submission that is about to be sent, or was refused."""
    return Entry(
        request=request,
        fingerprint=fingerprint(request),
        comment_id=comment_id(request.magic, request.client_order_id),
        state=state,
        sent_msc=sent_msc,
        answer=answer,
    )


class Journal:
    """One account's submissions. Used by the terminal's thread only."""

    def __init__(
        self,
        path: Path,
        account: str,
        *,
        durable: bool = True,
        monotonic: Callable[[], float] = elapsed_s,
    ) -> None:
        """Open or create. `durable` false: no sync (volume tests in memory only). Raises UnusableError."""
        self._path = path
        self._db = database.opened(path, _SCHEMA, durable=durable, threads=True)
        self._durable = durable
        self._account = account
        self._unsent: Counter[int] = Counter()
        # Only a file that no gateway has open is restored: what is known now stays so, and no order waits.
        self._restorations = self._db.execute(_RESTORATIONS).fetchall()
        self._monotonic = monotonic
        self._lately_until: dict[str, float] = {}
        """By backup, until when it counts as lately whatever the wall clock is set to meanwhile."""

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def restored_since(self, now_msc: int) -> int | None:
        """Broker time from which submissions may be missing here: the file was restored from a backup within
        the last day. None: it was not. `now_msc`: wall clock.
        """
        now_s = self._monotonic()
        lately = []
        for since, at, backup in self._restorations:
            left_ms = at + _RESTORED_FOR_MS - now_msc
            if left_ms > 0:
                self._lately_until.setdefault(backup, now_s + min(left_ms, _RESTORED_FOR_MS) / 1000)
            if left_ms > 0 or now_s < self._lately_until.get(backup, now_s):
                lately.append(since)
        return min(lately, default=None)

    def begins_at_nothing(self, now_msc: int) -> None:
        """There was no file, and nobody knows yet whether another was before it: the gateway's host may have
        been reinstalled, or replaced. Until the books have shown that none was, unknown ids are looked for in
        them, as in a restored journal. `now_msc`: wall clock. Raises UnusableError.
        """
        try:
            row = (_NO_BACKUP, max(0, now_msc - _BEFORE_MS), now_msc)
            self._db.execute("INSERT INTO restorations VALUES (?, ?, ?)", row)
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from error
        self._restorations = self._db.execute(_RESTORATIONS).fetchall()

    @property
    def doubts_its_beginning(self) -> bool:
        """Whether it is not known yet that no journal was before it."""
        return any(backup == _NO_BACKUP for _, _, backup in self._restorations)

    def began_at(self, broker_msc: int) -> None:
        """That is the broker's time, while this journal begins at nothing: the wall clock, from which was
        reckoned how far back the books are searched, may be ahead of it. Raises JournalError.
        """
        try:
            self._db.execute(
                "UPDATE restorations SET since_msc = MIN(since_msc, ?) WHERE backup = ?",
                (max(0, broker_msc - _BEFORE_MS), _NO_BACKUP),
            )
        except sqlite3.Error as error:
            raise JournalError(str(error)) from error
        self._restorations = self._db.execute(_RESTORATIONS).fetchall()

    def nothing_was_before(self) -> None:
        """The books show no order of a gateway from before this journal. Raises JournalError."""
        try:
            self._db.execute("DELETE FROM restorations WHERE backup = ?", (_NO_BACKUP,))
        except sqlite3.Error as error:
            raise JournalError(str(error)) from error
        self._restorations = self._db.execute(_RESTORATIONS).fetchall()

    def find(self, magic: int, client_order_id: str) -> Entry | None:
        """What is recorded under an id. Raises JournalError when that cannot be read."""
        try:
            row = self._db.execute(
                f"SELECT {_COLUMNS} FROM submissions "  # noqa: S608
                "WHERE account = ? AND magic = ? AND client_order_id = ?",
                (self._account, magic, client_order_id),
            ).fetchone()
            return _entry(row) if row else None
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise JournalError(str(database.unusable(self._path, error))) from error

    def unresolved(self) -> list[Entry]:
        """Submissions whose outcome is not known."""
        return self._in_state("sent")

    def told(self) -> list[Entry]:
        """Submissions that were answered before the broker's books showed them."""
        return self._in_state("told")

    def declared(self) -> list[Entry]:
        """Submissions that a person declared not executed, and that are still looked for."""
        return self._in_state("declared")

    def belongs(self, magic: int, comment: str, order: int) -> bool:
        """Whether an order at the broker, or one of this comment, is that of any submission."""
        row = self._db.execute(
            "SELECT 1 FROM submissions WHERE account = ? AND magic = ? AND "
            "(comment_id = ? OR (state IN ('done', 'told') AND json_extract(answer, '$.order') = ?)) LIMIT 1",
            (self._account, magic, comment, order),
        )
        return row.fetchone() is not None

    def _in_state(self, state: Literal["sent", "told", "declared"]) -> list[Entry]:
        # the state is part of the text: an index of that state alone is used then
        query = f"SELECT {_COLUMNS} FROM submissions WHERE account = ? AND state = '{state}'"  # noqa: S608
        try:
            return [_entry(row) for row in self._db.execute(query, (self._account,))]
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            raise database.unusable(self._path, error) from error

    def record(self, entry: Entry) -> None:
        """Add an entry, durably. Raises JournalError; then nothing is recorded."""
        request = entry.request
        try:
            self._db.execute(
                "INSERT INTO submissions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._account,
                    request.magic,
                    request.client_order_id,
                    request.client,
                    request.lease_epoch,
                    entry.fingerprint,
                    entry.comment_id,
                    msgspec.json.encode(request).decode(),
                    entry.state,
                    entry.sent_msc,
                    msgspec.json.encode(entry.answer).decode() if entry.answer else "",
                ),
            )
        except sqlite3.Error as error:
            raise JournalError(str(database.unusable(self._path, error))) from error

    def withdraw(self, entry: Entry, answer: Error, refused_msc: int) -> None:
        """Record that what is recorded as sent was certainly not sent, by this host's clock. Raises
        JournalError.
        """
        request = entry.request
        try:
            self._db.execute(
                "UPDATE submissions SET state = 'refused', answer = ?, sent_msc = ? "
                "WHERE account = ? AND magic = ? AND client_order_id = ? AND state = 'sent'",
                (
                    msgspec.json.encode(answer).decode(),
                    refused_msc,
                    self._account,
                    request.magic,
                    request.client_order_id,
                ),
            )
        except sqlite3.Error as error:
            raise JournalError(str(database.unusable(self._path, error))) from error

    def settle(
        self,
        entry: Entry,
        answer: OrderResult,
        failures: int,
        state: Literal["done", "told", "declared"],
        seen: Iterable[Sighting] = (),
    ) -> None:
        """Record the outcome, the new count of consecutive failures and what was seen of it at the broker, in
        one transaction. Raises JournalError.
        """
        request = entry.request
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "UPDATE submissions SET state = ?, answer = ? "
                "WHERE account = ? AND magic = ? AND client_order_id = ?",
                (
                    state,
                    msgspec.json.encode(answer).decode(),
                    self._account,
                    request.magic,
                    request.client_order_id,
                ),
            )
            self._db.execute(
                "REPLACE INTO failures VALUES (?, ?, ?)", (self._account, request.magic, failures)
            )
            self._write_seen(seen)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise JournalError(str(database.unusable(self._path, error))) from error

    def sightings(self) -> list[tuple[str, int, bytes]]:
        """What was last seen at the broker: kind, number and content. Raises UnusableError."""
        query = "SELECT kind, key, record FROM sightings WHERE account = ?"
        try:
            return self._db.execute(query, (self._account,)).fetchall()
        except sqlite3.DatabaseError as error:
            raise database.unusable(self._path, error) from error

    def saw(self, seen: Iterable[Sighting]) -> None:
        """Write down what is seen at the broker now, without waiting for the disk: it survives this process,
        and the host from the next order on. Raises JournalError.
        """
        try:
            self._db.execute(f"PRAGMA synchronous={'NORMAL' if self._durable else 'OFF'}")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._write_seen(seen)
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._db.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
        except sqlite3.Error as error:
            raise JournalError(str(database.unusable(self._path, error))) from error

    def _write_seen(self, seen: Iterable[Sighting]) -> None:
        for kind, key, record in seen:
            if record is None:
                self._db.execute(
                    "DELETE FROM sightings WHERE account = ? AND kind = ? AND key = ?",
                    (self._account, kind, key),
                )
            else:
                self._db.execute(
                    "REPLACE INTO sightings VALUES (?, ?, ?, ?)", (self._account, kind, key, record)
                )

    def close_case(self, entry: Entry, seen: Iterable[Sighting] = ()) -> None:
        """Record that nothing more is expected of an answered submission, and what was seen of it at the
        broker. Raises JournalError.
        """
        request = entry.request
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "UPDATE submissions SET state = 'done' "
                "WHERE account = ? AND magic = ? AND client_order_id = ? AND state IN ('told', 'declared')",
                (self._account, request.magic, request.client_order_id),
            )
            self._write_seen(seen)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise JournalError(str(database.unusable(self._path, error))) from error

    def forget_unsent(self, magic: int) -> None:
        """For each that is recorded: keep the latest UNSENT_KEPT of a magic number, and some more.

        An order that was refused so long ago is of an old lease. Raises JournalError.
        """
        self._unsent[magic] += 1
        if self._unsent[magic] % _FORGET_EVERY:
            return
        try:
            self._db.execute(
                "DELETE FROM submissions WHERE account = ?1 AND magic = ?2 AND state = 'refused' "
                "AND sent_msc < (SELECT sent_msc FROM submissions "
                "WHERE account = ?1 AND magic = ?2 AND state = 'refused' "
                "ORDER BY sent_msc DESC LIMIT 1 OFFSET ?3)",
                (self._account, magic, UNSENT_KEPT),
            )
        except sqlite3.Error as error:
            raise JournalError(str(database.unusable(self._path, error))) from error

    def epochs(self) -> dict[int, int]:
        """The last lease epoch that was used, by magic number."""
        rows = self._db.execute(
            "SELECT magic, MAX(epoch) FROM submissions WHERE account = ? GROUP BY magic", (self._account,)
        )
        return dict(rows.fetchall())

    def failures(self) -> dict[int, int]:
        """Consecutive failures per magic number."""
        return dict(
            self._db.execute(
                "SELECT magic, count FROM failures WHERE account = ?", (self._account,)
            ).fetchall()
        )

    def reset_failures(self, magic: int) -> None:
        """Close the circuit breaker. Raises JournalError."""
        try:
            self._db.execute("REPLACE INTO failures VALUES (?, ?, 0)", (self._account, magic))
        except sqlite3.Error as error:
            raise JournalError(str(database.unusable(self._path, error))) from error


def replayed(path: Path) -> list[tuple[str, Entry]]:
    """Every submission of a journal that no gateway uses, with its account; oldest first. Read only.

    Raises BrokenError when the file, or what is in it, is damaged.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            rows = db.execute(f"SELECT account, {_COLUMNS} FROM submissions ORDER BY sent_msc").fetchall()  # noqa: S608
        return [(account, _entry(tuple(row))) for account, *row in rows]
    except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
        raise database.unusable(path, error) from error


def restorations(path: Path) -> list[int]:
    """For each time that a journal was restored, the broker time since when its gateway looks in the books.

    Raises UnusableError.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            known = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'restorations'").fetchone()
            query = "SELECT since_msc FROM restorations WHERE backup != ?"
            rows = db.execute(query, (_NO_BACKUP,)).fetchall() if known else []
        return [int(since) for (since,) in rows]
    except sqlite3.Error as error:
        raise database.unusable(path, error) from error


_COLUMNS = "request, fingerprint, comment_id, state, sent_msc, answer"


def _entry(row: tuple[str, str, str, State, int, str]) -> Entry:
    request, print_, comment, state, sent_msc, answer = row
    return Entry(
        request=_requests.decode(request),
        fingerprint=print_,
        comment_id=comment,
        state=state,
        sent_msc=sent_msc,
        answer=_answers.decode(answer) if answer else None,
    )
