"""What the reviewer may cost. Money is reserved before a call, for the worst case, and charged after it.

Two processes share one budget. A call whose end is not known keeps its reservation.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

_DAY_S: Final = 86_400
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spent (id INTEGER PRIMARY KEY, day INTEGER NOT NULL, dollars REAL NOT NULL);
CREATE INDEX IF NOT EXISTS spent_day ON spent (day);
"""


class BudgetError(Exception):
    """There is not enough left, or it cannot be told; the text says what to do."""


class Budget:
    """The money of a day (UTC) and of one review, in US dollars."""

    def __init__(
        self, path: Path, per_day: float, per_review: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._per_day = per_day
        self._per_review = per_review
        self._clock = clock
        self._mine: dict[int, float] = {}

    def reserve(self, dollars: float) -> int:
        """Set money aside; return a number to charge it with.

        :raises BudgetError: not enough is left today or for this review, or the record cannot be read
        """
        if sum(self._mine.values()) + dollars > self._per_review:
            raise BudgetError(
                f"the budget of one review, ${self._per_review:g}, is used up; raise REVIEW_BUDGET_REVIEW"
            )
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            day = self._day(database)
            spent = float(
                database.execute("SELECT total(dollars) FROM spent WHERE day = ?", (day,)).fetchone()[0]
            )
            if spent + dollars > self._per_day:
                database.execute("ROLLBACK")
                raise BudgetError(
                    f"the budget of the day, ${self._per_day:g}, is used up (${spent:.2f}); wait for "
                    "midnight UTC, or raise REVIEW_BUDGET_DAY"
                )
            number = database.execute(
                "INSERT INTO spent (day, dollars) VALUES (?, ?)", (day, dollars)
            ).lastrowid
            database.execute("COMMIT")
        assert number is not None  # noqa: S101  (an INSERT has one)
        self._mine[number] = dollars
        return number

    def charge(self, number: int, dollars: float) -> None:
        """Say what a call has cost in the end."""
        self._mine[number] = dollars
        with self._open() as database:
            database.execute("UPDATE spent SET dollars = ? WHERE id = ?", (dollars, number))

    def today(self) -> float:
        """Dollars of this day so far, with what is reserved."""
        with self._open() as database:
            day = self._day(database)
            found = database.execute("SELECT total(dollars) FROM spent WHERE day = ?", (day,)).fetchone()
        return float(found[0])

    def left(self) -> float:
        """Dollars that this day may still cost."""
        return max(0.0, self._per_day - self.today())

    def day_start(self) -> float:
        """When the day began that is counted, in Unix time."""
        with self._open() as database:
            return float(self._day(database) * _DAY_S)

    def _day(self, database: sqlite3.Connection) -> int:
        """The day, or a later one that was seen already: a clock that is set back brings no money back."""
        latest = database.execute("SELECT max(day) FROM spent").fetchone()[0]
        return max(int(self._clock() // _DAY_S), latest or 0)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as database:
                database.executescript(_SCHEMA)
                yield database
        except (sqlite3.Error, OSError) as error:
            raise BudgetError(
                f"what was spent cannot be read from {self._path} ({error}), so nothing more is spent; "
                "move the file away to begin a new count"
            ) from None
