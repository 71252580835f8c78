"""Tells being asked again to stop from the same Ctrl-C that arrived twice.

A terminal sends it to every process of the foreground, and a program such as `uv run` hands its own on to the
one that it started. Nobody presses twice within half a second; taken for "at once", the second one would keep
the run from giving the fleet's lock back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

ONE_PRESS_S = 0.5


@dataclass
class StopRequests:
    """Counts how often somebody has asked."""

    asked: int = 0
    _last: float = 0.0

    def is_new(self) -> bool:
        """Note a signal; False for the echo of the one before."""
        now = time.monotonic()
        echo = self.asked > 0 and now - self._last < ONE_PRESS_S
        self._last = now
        self.asked += not echo
        return not echo
