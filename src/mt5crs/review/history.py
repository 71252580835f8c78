"""The record of runs: what each review came to and cost. One SQLite file, safe for two processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.review.external_gate import Figures
from mt5crs.review.model import ReviewError

FILE: Final = "history.sqlite"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS run_at ON run (at);
"""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One review that was made."""

    at: float
    """When it ended, in Unix time."""
    tree: str
    result: str
    external: str
    mode: str
    seconds: float
    places: int
    """Files that would have fitted into the calls that were answered."""
    figures: Figures
    reviewer_down: bool | None
    """None: the reviewer was not asked."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over runs. A rate is one of sums, so that a small run counts little; None: nothing to divide."""

    runs: int
    passed: int
    api_calls: int
    failed_calls: int
    places: int
    files: int
    cached_files: int
    asked_files: int
    tokens_in: int
    tokens_out: int
    price: float
    price_unknown: float
    price_without: float
    cache_hit_rate: float | None
    batch_efficiency: float | None
    cost_reduction_rate: float | None
    reviewer_down: bool | None
    """At the last run that asked."""


def totals(runs: Iterable[Run]) -> Totals:
    """Sum up, in the order in which the runs were made."""
    made = list(runs)

    def added(name: str) -> int:
        return sum(getattr(run.figures, name) for run in made)

    price, unknown, without = (
        round(sum(getattr(run.figures, name) for run in made), 6)
        for name in ("price", "price_unknown", "price_without")
    )
    files, cached, asked = added("files"), added("cached_files"), added("asked_files")
    places = sum(run.places for run in made)
    known = [run.reviewer_down for run in made if run.reviewer_down is not None]
    return Totals(
        runs=len(made),
        passed=sum(run.result == "PASSED" for run in made),
        api_calls=added("api_calls"),
        failed_calls=added("failed_calls"),
        places=places,
        files=files,
        cached_files=cached,
        asked_files=asked,
        tokens_in=added("tokens_in"),
        tokens_out=added("tokens_out"),
        price=price,
        price_unknown=unknown,
        price_without=without,
        cache_hit_rate=round(cached / files, 4) if files else None,
        batch_efficiency=round(asked / places, 4) if places else None,
        cost_reduction_rate=round(1 - (price + unknown) / without, 4) if without else None,
        reviewer_down=known[-1] if known else None,
    )


class History:
    """Runs that were made, oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, run: Run) -> None:
        """Keep a run.

        :raises ReviewError: the file cannot be written
        """
        with self._open() as database:
            database.execute("INSERT INTO run (at, body) VALUES (?, ?)", (run.at, msgspec.json.encode(run)))

    def runs(self, since: float = 0.0) -> list[Run]:
        """Runs that ended at `since` (Unix time) or later.

        :raises ReviewError: the file cannot be read, or is damaged
        """
        with self._open() as database:
            rows = database.execute("SELECT body FROM run WHERE at >= ? ORDER BY id", (since,)).fetchall()
            return [msgspec.json.decode(body, type=Run) for (body,) in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as database:
                database.executescript(_SCHEMA)
                yield database
        except (sqlite3.Error, OSError, TypeError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ReviewError(
                f"the record of runs {self._path} cannot be used ({error}); move it away to begin a new one"
            ) from None
