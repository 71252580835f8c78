"""What is durable about phases: the record in force per magic number, what happened, and time that nobody can
turn back. In `control.db`, beside leases and halts: who loses that file has a halt to lift before anything
trades.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from mt5crs.protocol.fields import TradingState
from mt5crs.protocol.records import PhaseAct
from mt5crs.service import database
from mt5crs.service.elapsed import elapsed_s

from .refusal import Refusal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS phases (account TEXT, magic INTEGER, serial INTEGER NOT NULL,
    profile TEXT NOT NULL, trading TEXT NOT NULL, why TEXT NOT NULL, record TEXT NOT NULL,
    signature TEXT NOT NULL, since_ms INTEGER NOT NULL, stats TEXT NOT NULL, PRIMARY KEY (account, magic));
CREATE TABLE IF NOT EXISTS phase_acts (at_msc INTEGER NOT NULL, observed_ms INTEGER NOT NULL,
    account TEXT NOT NULL, magic INTEGER NOT NULL, act TEXT NOT NULL, profile TEXT NOT NULL,
    serial INTEGER NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS phase_acts_by_magic ON phase_acts (account, magic, act);
CREATE TABLE IF NOT EXISTS phase_clock (one INTEGER PRIMARY KEY, observed_ms INTEGER NOT NULL,
    mark_msc INTEGER NOT NULL, stopped INTEGER NOT NULL);
"""
_ACTS_SHOWN = 200
Act = Literal[
    "set", "override", "demoted", "lapsed", "forged", "reducing", "active", "halted", "critical", "crash"
]


class Stats(Struct, kw_only=True):
    """Counted since the phase began; at most a minute behind after a crash.

    `started_msc` is the wall clock then. `latency` holds how many orders took at most so many milliseconds.
    """

    started_msc: int = 0
    orders: int = 0
    dry_runs: int = 0
    fills: int = 0
    rejects: int = 0
    worst_day: float | None = None
    latency: dict[int, int] = msgspec.field(default_factory=dict)


class Standing(Struct, kw_only=True):
    """The phase of a magic number as it is kept. `since_ms`: observed time when the phase began."""

    serial: int = 0
    profile: str = ""
    trading: TradingState = "ACTIVE"
    why: str = ""
    record: str = ""
    signature: str = ""
    since_ms: int = 0
    stats: Stats = msgspec.field(default_factory=Stats)


class PhaseStore:
    """Not thread-safe: its owner locks."""

    def __init__(
        self,
        path: Path,
        account: str,
        *,
        monotonic: Callable[[], float] = elapsed_s,
        wall_msc: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        durable: bool = True,
    ) -> None:
        """Open or create. A run that was not stopped counts as a crash. Raises UnusableError."""
        self._db = database.opened(path, _SCHEMA, durable=durable, threads=True)
        self._path = path
        self._account = account
        self._monotonic = monotonic
        self._wall_msc = wall_msc
        self._began = monotonic()
        row = self._db.execute("SELECT observed_ms, mark_msc, stopped FROM phase_clock").fetchone()
        stopped: int
        self._observed_ms: int
        self._mark_msc: int
        self._observed_ms, self._mark_msc, stopped = row or (0, 0, 1)
        # Of the wall clock only what it says now counts: what is set back later, or forward, changes nothing.
        self._start_msc = max(wall_msc(), self._mark_msc)
        if not stopped:
            self.act(0, "crash", "", 0, "gateway", "the run before ended without having been stopped")
        self._keep_clock(stopped=False)

    def close(self) -> None:
        """Note that this run was stopped, and close the file."""
        try:
            self._keep_clock(stopped=True)
        finally:
            self._db.close()

    # --- time ----------------------------------------------------------------------------------------------

    def now_msc(self) -> int:
        """The time by which records run out: it only rises, whatever happens to the wall clock."""
        return self._start_msc + self._passed_ms()

    def observed_ms(self) -> int:
        """For how long a gateway has run over these files, all runs together."""
        return self._observed_ms + self._passed_ms()

    def trust(self, msc: int) -> None:
        """It is at least as late as a record says that was signed. Raises sqlite3.Error."""
        self._mark_msc = max(self._mark_msc, msc - self._passed_ms())
        self._keep_clock(stopped=False)

    def keep(self, standings: dict[int, Standing]) -> None:
        """Write time and figures, in one transaction. Raises sqlite3.Error."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._keep_clock(stopped=False)
            for magic, standing in standings.items():
                self._db.execute(
                    "UPDATE phases SET stats = ? WHERE account = ? AND magic = ?",
                    (msgspec.json.encode(standing.stats).decode(), self._account, magic),
                )

    def _passed_ms(self) -> int:
        return int((self._monotonic() - self._began) * 1000)

    def _keep_clock(self, *, stopped: bool) -> None:
        passed = self._passed_ms()
        mark = self._mark_msc + passed if self._mark_msc else 0
        self._db.execute(
            "REPLACE INTO phase_clock VALUES (1, ?, ?, ?)", (self._observed_ms + passed, mark, int(stopped))
        )

    # --- standings and acts --------------------------------------------------------------------------------

    def standings(self) -> dict[int, Standing]:
        """What is kept, by magic number. Raises UnusableError."""
        try:
            return self._standings()
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise database.unusable(self._path, error) from error

    def _standings(self) -> dict[int, Standing]:
        rows = self._db.execute(
            "SELECT magic, serial, profile, trading, why, record, signature, since_ms, stats FROM phases "
            "WHERE account = ?",
            (self._account,),
        )
        return {
            magic: Standing(
                serial=serial,
                profile=profile,
                trading=trading,
                why=why,
                record=record,
                signature=signature,
                since_ms=since,
                stats=msgspec.json.decode(stats, type=Stats, strict=False),
            )
            for magic, serial, profile, trading, why, record, signature, since, stats in rows
        }

    def put(self, magic: int, standing: Standing, act: Act, by: str) -> None:
        """Keep a standing together with the act that led to it. Raises Refusal INTERNAL if the disk fails."""
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute(
                    "REPLACE INTO phases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        self._account,
                        magic,
                        standing.serial,
                        standing.profile,
                        standing.trading,
                        standing.why,
                        standing.record,
                        standing.signature,
                        standing.since_ms,
                        msgspec.json.encode(standing.stats).decode(),
                    ),
                )
                self.act(magic, act, standing.profile, standing.serial, by, standing.why)
        except sqlite3.Error as error:
            raise Refusal(
                "INTERNAL",
                "control",
                f"the phase cannot be recorded ({error}); the one before stays in force",
                "free disk space on the gateway, then send it again",
                retry_ms=5000,
            ) from error

    def act(self, magic: int, act: Act, profile: str, serial: int, by: str, reason: str) -> None:
        """Record something that happened. Raises sqlite3.Error."""
        self._db.execute(
            "INSERT INTO phase_acts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._wall_msc(),
                self.observed_ms(),
                self._account,
                magic,
                act,
                profile,
                serial,
                by,
                reason[:256],
            ),
        )

    def acts(self, magic: int) -> list[PhaseAct]:
        """The latest acts of a magic number and of the gateway itself, newest first."""
        rows = self._db.execute(
            "SELECT at_msc, magic, act, profile, serial, by, reason FROM phase_acts "
            "WHERE account = ? AND magic IN (0, ?) ORDER BY rowid DESC LIMIT ?",
            (self._account, magic, _ACTS_SHOWN),
        )
        return [
            PhaseAct(at_msc=at, magic=of, act=act, profile=profile, serial=serial, by=by, reason=reason)
            for at, of, act, profile, serial, by, reason in rows
        ]

    def last_ms(self, magic: int, *acts: Act) -> int | None:
        """Observed time of the last of such acts, of the magic number or of the gateway itself."""
        marks = ", ".join("?" * len(acts))
        row = self._db.execute(
            "SELECT MAX(observed_ms) FROM phase_acts "  # noqa: S608
            f"WHERE account = ? AND magic IN (0, ?) AND act IN ({marks})",
            (self._account, magic, *acts),
        ).fetchone()
        return None if row is None else row[0]
