"""How fast bundles leave the Hub: so many bytes a second to each host, and to all of them together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """A rate that several threads share; nobody is served twice before the one who came first."""

    def __init__(self, bytes_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.bytes_s = bytes_s
        self._now = now
        self._free_at = now()
        self._lock = threading.Lock()

    def take(self, count: int) -> float:
        """Reserve ``count`` bytes; return the seconds to wait before they may be sent.

        What nobody used is not saved up, so there are no bursts.
        """
        with self._lock:
            now = self._now()
            begins = max(now, self._free_at)
            self._free_at = begins + count / self.bytes_s
            return begins - now


def block_size(bytes_s: float) -> int:
    """Return how many bytes to send at once: ten times a second, between 4 KB and 256 KB."""
    return int(min(1 << 18, max(1 << 12, bytes_s / 10)))
