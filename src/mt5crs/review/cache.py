"""Answers of the reviewer, kept by what exactly was asked. A changed byte is another question.

A cache that is damaged costs calls and nothing else: a bad row is dropped and counted, a bad file begun anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from mt5crs.review import prompt
from mt5crs.review.model import Finding
from mt5crs.review.units import Unit

_T = TypeVar("_T")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answer (
    key TEXT PRIMARY KEY, body BLOB NOT NULL, digest TEXT NOT NULL, written REAL NOT NULL, used REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS place (path TEXT PRIMARY KEY, route TEXT NOT NULL);
"""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer about one unit, and the call it came from."""

    findings: list[Finding]
    call: str
    """Digest of the request."""
    mode: str
    lasts_s: float


def key(unit: Unit, provider: str, model: str, reply_tokens: int, tool: str) -> str:
    """SHA-256 over all that an answer depends on."""
    asked = [unit.path, unit.part, unit.text, unit.route, unit.context]
    asked += [prompt.VERSION, provider, model, reply_tokens, 0, tool]
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


class Cache:
    """Kept answers in one SQLite file, safe for two processes.

    `writable` is false for a run that nobody vouches for.
    """

    def __init__(
        self, path: Path, most_bytes: int, *, writable: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._writable = writable
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self.damaged = 0
        """Rows and files that could not be used."""

    def get(self, wanted: str) -> Kept | None:
        """The answer of that key, unless it is too old, damaged, or from the future."""
        return self._do(lambda database: self._get(database, wanted), None)

    def put(self, wanted: str, kept: Kept) -> None:
        """Keep an answer, and drop those that were used least lately when there are too many bytes."""
        if self._writable:
            self._do(lambda database: self._put(database, wanted, kept), None)

    def moved(self, unit: Unit) -> bool:
        """Whether a file has another route than the last time; the new one is noted."""
        return self._do(lambda database: self._moved(database, unit), False)

    def _get(self, database: sqlite3.Connection, wanted: str) -> Kept | None:
        row = database.execute("SELECT body, digest, written FROM answer WHERE key = ?", (wanted,)).fetchone()
        if row is None:
            return None
        body, digest, written = row
        kept = _read(body, digest, wanted)
        if kept is None:
            self.damaged += 1
        age = self._clock() - written
        # A clock that was set back makes answers look younger than they are: those of the future are old.
        good = kept is not None and 0 <= age <= kept.lasts_s
        if self._writable and good:
            database.execute("UPDATE answer SET used = ? WHERE key = ?", (self._clock(), wanted))
        elif self._writable:
            database.execute("DELETE FROM answer WHERE key = ?", (wanted,))
        return kept if good else None

    def _put(self, database: sqlite3.Connection, wanted: str, kept: Kept) -> None:
        body, now = msgspec.json.encode(kept), self._clock()
        database.execute(
            "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)",
            (wanted, body, _digest(body, wanted), now, now),
        )
        size = database.execute("SELECT total(length(body)) FROM answer").fetchone()[0]
        if size <= self._most_bytes:
            return
        rows = database.execute("SELECT key, length(body) FROM answer ORDER BY used, key").fetchall()
        for name, length in rows:
            if size <= self._most_bytes:
                break
            database.execute("DELETE FROM answer WHERE key = ?", (name,))
            size -= length

    def _moved(self, database: sqlite3.Connection, unit: Unit) -> bool:
        before = database.execute("SELECT route FROM place WHERE path = ?", (unit.path,)).fetchone()
        if self._writable and (before is None or before[0] != unit.route):
            database.execute("INSERT OR REPLACE INTO place VALUES (?, ?)", (unit.path, unit.route))
        return before is not None and before[0] != unit.route

    def _do(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """Do it with the database, or without: what goes wrong is counted, and a bad file is begun anew."""
        try:
            if self._database is None:
                self._database = self._open()
            return work(self._database)
        except (sqlite3.Error, OSError) as error:
            self.damaged += 1
            if self._database is not None:
                self._database.close()
                self._database = None
            # Locked or full is no damage; only what is no database any more is moved away.
            if self._writable and not isinstance(error, (sqlite3.OperationalError, OSError)):
                with contextlib.suppress(OSError):
                    self._path.replace(self._path.with_suffix(".damaged"))
            return otherwise

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            # Answers can be asked for again, and each has a digest: nothing waits for the disk.
            database.executescript(f"PRAGMA synchronous = OFF; {_SCHEMA}")
        except sqlite3.Error:
            database.close()
            raise
        return database


def _digest(body: bytes, wanted: str) -> str:
    return hashlib.sha256(wanted.encode() + body).hexdigest()


def _read(body: object, digest: object, wanted: str) -> Kept | None:
    """The row, unless a byte of it changed or it belongs to another key."""
    if not isinstance(body, bytes) or digest != _digest(body, wanted):
        return None
    try:
        return msgspec.json.decode(body, type=Kept)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
