"""Order intents, durable before anything is sent: one SQLite file (WAL, full sync), locked by one process."""

from __future__ import annotations

import fcntl
import os
import platform
import time
import uuid
from pathlib import Path
from typing import Literal

import msgspec

from mt5crs.service import database
from mt5crs.settings.schema import SettingsError

IntentState = Literal["intent", "done", "refused", "never_sent", "unknown"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS intent (
    client_order_id TEXT PRIMARY KEY, magic INTEGER NOT NULL, kind TEXT NOT NULL, request BLOB NOT NULL,
    state TEXT NOT NULL, answer TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS open_intents ON intent (state) WHERE state IN ('intent', 'unknown');
CREATE TABLE IF NOT EXISTS home (id INTEGER PRIMARY KEY CHECK (id = 1), place TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS instance (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL) STRICT;
"""

_KEEP_S = 400 * 86400
"""Settled intents are kept for more than a year, as evidence."""


def _place_of(directory: Path) -> str:
    """This directory on this host, and no copy of it."""
    try:
        host = Path("/etc/machine-id").read_text().strip()
    except OSError:
        host = platform.node()
    found = directory.stat()
    return f"{host}:{found.st_dev}:{found.st_ino}"


class IntentJournal:
    """The strategy's own record. `intent` and `unknown` are open: their fate is asked for, never guessed."""

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        """Raises SettingsError when the directory cannot be used or another process holds it. `durable`:
        `database.opened`.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "strategy.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                "strategy state",
                [f"another strategy process uses STATE_DIR {directory}; stop it, or give this one its own"],
            ) from error
        except OSError as error:
            raise SettingsError(
                "strategy state",
                [f"STATE_DIR {directory} cannot be used: {error}; make it writable for this user"],
            ) from error
        self._directory = directory
        try:
            self._db = database.opened(directory / "intents.db", _SCHEMA, durable=durable, threads=True)
        except database.UnusableError as error:
            raise SettingsError("strategy state", [str(error)]) from error
        self._db.execute(
            "DELETE FROM intent WHERE state NOT IN ('intent', 'unknown') AND changed < ?",
            (time.time() - _KEEP_S,),
        )

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self._db.close()
        os.close(self._lock)

    def instance(self) -> str:
        """The lease instance of this state directory: the same after a crash, so that the successor of a dead
        process need not wait for its lease to run out. The lock makes sure that there is only one; a copy of
        the directory, on this or another host, gets a name of its own.
        """
        place = _place_of(self._directory)
        known = self._db.execute("SELECT place FROM home").fetchone()
        if known is not None and known[0] != place:
            self._db.execute("DELETE FROM instance")
        self._db.execute("REPLACE INTO home (id, place) VALUES (1, ?)", (place,))
        self._db.execute(
            "INSERT OR IGNORE INTO instance (id, name) VALUES (1, ?)", (f"strategy-{uuid.uuid4().hex}",)
        )
        name: str = self._db.execute("SELECT name FROM instance").fetchone()[0]
        return name

    def open_intent(self, client_order_id: str, magic: int, kind: str, content: dict[str, object]) -> None:
        """Record what is about to be sent; durable on return."""
        now = time.time()
        self._db.execute(
            "INSERT INTO intent VALUES (?, ?, ?, ?, 'intent', '', ?, ?)",
            (client_order_id, magic, kind, msgspec.json.encode(content), now, now),
        )

    def settle(self, client_order_id: str, state: IntentState, answer: str) -> None:
        """Record what became of it."""
        self._db.execute(
            "UPDATE intent SET state = ?, answer = ?, changed = ? WHERE client_order_id = ?",
            (state, answer, time.time(), client_order_id),
        )

    def unsettled(self) -> list[str]:
        """Client order ids whose fate is not known, oldest first."""
        rows = self._db.execute(
            "SELECT client_order_id FROM intent WHERE state IN ('intent', 'unknown') ORDER BY created"
        )
        return [row[0] for row in rows]

    def states(self) -> dict[str, IntentState]:
        """State of every intent."""
        return dict(self._db.execute("SELECT client_order_id, state FROM intent"))
