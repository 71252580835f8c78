"""Orders that the broker was asked for since the last deal of their magic number, as this process saw."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from mt5crs.protocol.fields import Outcome
from mt5crs.service.elapsed import elapsed_s

_ASKED = ("PLACED", "REJECTED")
_FILLED = ("FILLED", "PARTIAL")


class Unfilled:
    """Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = elapsed_s) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._since: dict[int, tuple[int, float]] = {}

    def answered(self, magic: int, outcome: Outcome) -> None:
        """The broker has answered an order."""
        with self._lock:
            if outcome in _FILLED:
                self._since.pop(magic, None)
            elif outcome in _ASKED:
                asked, since = self._since.get(magic, (0, self._monotonic()))
                self._since[magic] = (asked + 1, since)

    def dealt(self, magic: int) -> None:
        """A deal was seen, or whoever counts begins anew."""
        with self._lock:
            self._since.pop(magic, None)

    def of(self, magic: int) -> tuple[int, float]:
        """How many orders without a deal, and for how many seconds."""
        with self._lock:
            found = self._since.get(magic)
            return (found[0], self._monotonic() - found[1]) if found else (0, 0.0)

    def figures(self, magics: Collection[int]) -> dict[int, tuple[int, float]]:
        """The same of several magic numbers."""
        return {magic: self.of(magic) for magic in magics}
