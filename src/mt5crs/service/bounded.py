"""Log lines that a peer can cause, at a bounded rate: the first ones of each kind, then their number."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable

_INTERVAL_S = 10.0
_OF_A_KIND, _IN_ALL = 5, 50


class BoundedNotes:
    """At most five lines of a sort and fifty in all in ten seconds; the rest is counted in one line."""

    def __init__(self, note: Callable[..., None], clock: Callable[[], float] = time.monotonic) -> None:
        """`note(event, **fields)` writes a line."""
        self._note = note
        self._clock = clock
        self._lock = threading.Lock()
        self._until = 0.0
        self._seen: Counter[Hashable] = Counter()
        self._left_out: Counter[str] = Counter()

    def __call__(self, sort: Hashable, event: str, /, **fields: object) -> None:
        """Write a line, or count it. Safe from any thread."""
        self.flush()
        with self._lock:
            written = sum(self._seen.values())
            if written >= _IN_ALL or self._seen[sort] >= _OF_A_KIND:
                self._left_out[event] += 1
                return
            self._seen[sort] += 1
        self._note(event, **fields)

    def flush(self) -> None:
        """Say what was left out, once the ten seconds are over."""
        with self._lock:
            if self._clock() < self._until:
                return
            self._until = self._clock() + _INTERVAL_S
            left_out, self._left_out = self._left_out, Counter()
            self._seen.clear()
        for event, count in left_out.items():
            self._note("log.bounded", of=event, left_out=count, seconds=_INTERVAL_S)
