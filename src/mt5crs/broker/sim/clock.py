"""The simulated broker's clock: it never goes back by itself, and can be set."""

import time
from collections.abc import Callable

BROKER_CLOCK_OFFSET_MS = 2 * 3600 * 1000
"""The simulated broker lives two hours east of UTC, as many do."""


def broker_clock() -> int:
    """Now, by the broker's clock, in milliseconds."""
    return time.time_ns() // 1_000_000 + BROKER_CLOCK_OFFSET_MS


class BrokerClock:
    """Milliseconds. Time passes when it is advanced, and stands still in between."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.time = 0
        self.shift = 0
        """How far the clock that is on the records has been set from the one that goes on (`time`)."""

    def advance(self) -> int:
        """What time it has become."""
        self.time = max(self.time, self._now())
        return self.time

    def stamp(self) -> int:
        """Now, as it is written on records."""
        return self.time + self.shift

    def is_late(self, stamp_msc: int, lag_ms: int) -> bool:
        """Whether a record of that time is not shown yet; one from before the clock was set back is."""
        return self.stamp() - lag_ms < stamp_msc <= self.stamp()
