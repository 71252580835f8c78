"""Since when a message may have been waiting, though it is read only now. Pure but for the clock.

A gateway, or a host, that was frozen reads afterwards what came in meanwhile, and nothing on a message says
when that was. So what is read then counts as waiting since the freeze began.
"""

from collections import deque
from collections.abc import Callable

from mt5crs.service.elapsed import elapsed_s

_LATE_S = 0.25
"""A turn that is later than this was held up."""
_BEHIND_S = 1.0
"""At least so long afterwards messages of before may still come, and as long as the freeze took: TCP repeats
what was not taken at growing intervals."""


class Arrivals:
    """Used by the thread that reads the messages."""

    def __init__(self, clock: Callable[[], float] = elapsed_s) -> None:
        self._clock = clock
        self._turned = self._expected = clock()
        self._freezes: deque[tuple[float, float]] = deque()
        """When each began, and until when messages of that time may still be read."""

    def turn(self, pause_s: float = 0.0) -> None:
        """The thread is running; it says so again in `pause_s`, or a moment later."""
        now = self._clock()
        if now - self._expected > _LATE_S:
            self._freezes.append((self._turned, now + max(_BEHIND_S, now - self._turned)))
        self._turned, self._expected = now, now + pause_s

    def since(self) -> float:
        """The moment from which a message that was just read counts as waiting."""
        now = self._clock()
        while self._freezes and self._freezes[0][1] < now:
            self._freezes.popleft()
        return self._freezes[0][0] if self._freezes else now
