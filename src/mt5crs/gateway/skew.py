"""How far the time that the gateway goes by is from the broker's, as new quotes show it. Pure."""

from collections import deque
from collections.abc import Callable

_KEPT_S = 60.0


class Skew:
    """Judged by what has just happened at the broker: a quote that has changed since the last look.

    Each is a little older than now. The least of the differences of a minute is nearest to the truth.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._samples: deque[tuple[float, int]] = deque()

    def happened(self, now_msc: int, at_msc: int) -> None:
        """By the gateway's time it is `now_msc`; the broker dates what has just happened `at_msc`."""
        self._samples.append((self._monotonic(), now_msc - at_msc))
        self._forget()

    def ms(self) -> int | None:
        """Milliseconds by which the gateway's time is ahead (negative: behind).

        None when nothing has happened for a minute.
        """
        self._forget()
        return min((each for _, each in list(self._samples)), default=None)

    def _forget(self) -> None:
        oldest = self._monotonic() - _KEPT_S
        while self._samples and self._samples[0][0] < oldest:
            self._samples.popleft()
