"""The durable record: last known state and every event, in one SQLite file (WAL, full sync)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mt5crs.reconciler.model import Event, LocalState
from mt5crs.service import database
from mt5crs.settings.schema import SettingsError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    magic INTEGER PRIMARY KEY, format INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS event (
    magic INTEGER NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, seen REAL NOT NULL,
    PRIMARY KEY (magic, id)) STRICT;
"""
_FORMAT = 1
_KEEP_EVENTS_S = 400 * 86400
"""Events are kept for more than a year; recognising one again needs minutes only."""


class Acceptance(msgspec.Struct, frozen=True):
    """An operator's word that the broker's state is the truth from now on."""

    reason: str
    who: str


class Store:
    """State and events of one magic number. One process at a time (the unit guarantees it)."""

    def __init__(self, directory: Path, magic: int, *, durable: bool = True) -> None:
        """Raises SettingsError when the directory cannot be used. `durable`: `database.opened`."""
        self._magic = magic
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._path = directory / "reconciler.db"
            self._db = database.opened(self._path, _SCHEMA, durable=durable)
            self._db.execute("DELETE FROM event WHERE seen < ?", (time.time() - _KEEP_EVENTS_S,))
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                "reconciler state",
                [f"STATE_DIR {directory} cannot be used: {error}; make it writable for this user"],
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def load(self) -> LocalState | None:
        """The last saved state, or None at the very first start. Raises ValueError for another format."""
        query = "SELECT format, body FROM state WHERE magic = ?"
        try:
            row = self._db.execute(query, (self._magic,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise database.unusable(self._path, error) from error
        if row is None:
            return None
        if row[0] != _FORMAT:
            raise ValueError(f"the saved state has format {row[0]}, this release reads {_FORMAT}; roll back")
        try:
            return msgspec.msgpack.decode(row[1], type=LocalState)
        except msgspec.DecodeError as error:
            raise database.unusable(self._path, error) from error

    def save(self, state: LocalState, events: Iterable[Event]) -> list[Event]:
        """Write state and events in one transaction; returns the events never seen before. Raises
        UnusableError; then the record is the one before.
        """
        try:
            return self._save(state, events)
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from error

    def _save(self, state: LocalState, events: Iterable[Event]) -> list[Event]:
        fresh = []
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for event in events:
                cursor = self._db.execute(
                    "INSERT OR IGNORE INTO event (magic, id, kind, detail, seen) VALUES (?, ?, ?, ?, ?)",
                    (self._magic, event.id, event.kind, event.detail, time.time()),
                )
                if cursor.rowcount:
                    fresh.append(event)
            self._db.execute(
                "INSERT OR REPLACE INTO state (magic, format, body) VALUES (?, ?, ?)",
                (self._magic, _FORMAT, msgspec.msgpack.encode(state)),
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it
                self._db.execute("ROLLBACK")
            raise
        return fresh

    def events(self) -> list[Event]:
        """Every event, oldest first."""
        rows = self._db.execute(
            "SELECT id, kind, detail FROM event WHERE magic = ? ORDER BY seen, id", (self._magic,)
        )
        return [Event(*row) for row in rows]

    def acceptance(self) -> Acceptance | None:
        """An operator's acceptance that waits to be used."""
        try:
            return msgspec.json.decode((self.directory / "accept.json").read_bytes(), type=Acceptance)
        except FileNotFoundError:
            return None

    def acceptance_used(self) -> None:
        """Remove the acceptance once the new record is durable."""
        (self.directory / "accept.json").unlink(missing_ok=True)


def write_acceptance(directory: Path, acceptance: Acceptance) -> None:
    """Let the next start of the reconciler take the broker's state as its record. Raises OSError."""
    write_atomically(directory / "accept.json", msgspec.json.encode(acceptance), 0o644)


def write_atomically(path: Path, content: bytes, mode: int) -> None:
    """Replace a file so that readers see the old or the new text, never a part; durable on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(descriptor, mode)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
