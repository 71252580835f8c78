"""The broker's clock, measured by what is seen to happen there. Pure but for the host's monotonic clock.

A time stamp alone is only as young as what it stands on: hours old at weekends and in daily breaks. One that
has moved on since it was last seen is young, and no stamp is ahead of the broker's clock. So the clock is
what the latest of the stamps that moved say, from several sources; this host's own clock is not asked, so it
may be wrong or be put right.
"""

from collections import deque
from collections.abc import Callable

from mt5crs.service.elapsed import elapsed_s

_KEPT_MS = 10 * 60_000
"""So long the latest stamp counts; what a source shows before that is younger."""
_STEP_MS = 10 * 60_000
"""A quote so much before the last one of its symbol: the clock was set back (end of summer time)."""
QUOTE = "quote of "
"""What a source that shows one stamp after the other begins with."""


class BrokerClock:
    """Fed with every stamp that is read; `now` is None until one of them has moved on."""

    def __init__(self, monotonic_s: Callable[[], float] = elapsed_s) -> None:
        self._monotonic_s = monotonic_s
        self._last: dict[str, int] = {}
        self._offsets: deque[tuple[int, int]] = deque()
        """When a stamp had moved on, and how far it was ahead of the monotonic clock."""
        self._offset: int | None = None

    def saw(self, source: str, stamp_msc: int) -> None:
        """A source (a symbol's quote, the deals) shows this broker time."""
        last = self._last.get(source)
        self._last[source] = stamp_msc
        if last is None or stamp_msc == last:
            return
        now = self._now_ms()
        offset = stamp_msc - now
        if source.startswith(QUOTE) and 0 < stamp_msc < last - _STEP_MS:
            self._offsets.clear()  # of the time before
        self._offsets.append((now, offset))
        self._forget(now)
        self._offset = max(each for _, each in self._offsets)

    def now_msc(self) -> int | None:
        """The broker's time; None when it is not known."""
        return None if self._offset is None else self._now_ms() + self._offset

    def age_s(self) -> float | None:
        """How long ago it was last measured; None when it never was."""
        return (self._now_ms() - self._offsets[-1][0]) / 1000 if self._offsets else None

    def _forget(self, now: int) -> None:
        while self._offsets and self._offsets[0][0] < now - _KEPT_MS:
            self._offsets.popleft()

    def _now_ms(self) -> int:
        return int(self._monotonic_s() * 1000)
