"""When to connect the terminal again. Pure: the caller says what time it is, in seconds."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
REFUSED_PAUSE_S = 60.0
"""After a login that was refused: brokers lock accounts after many."""


class Attempts:
    """The first loss is mended at once; pauses grow while attempts fail, or while connections do not last."""

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._next = 0.0
        self._connected: float | None = None

    def due(self, now: float) -> bool:
        """Whether to try now. To be asked while there is no connection."""
        if self._connected is not None:
            if now - self._connected > 2 * self._pause_s:  # it lasted
                self._pause_s = self._next = 0.0
            self._connected = None
        return now >= self._next

    def succeeded(self, now: float) -> None:
        """The terminal is connected."""
        self._connected = now
        self._wait(now)

    def failed(self, now: float, *, refused: bool) -> float:
        """The attempt failed, `refused` by the trade server; seconds until the next."""
        if refused:
            self._next = now + REFUSED_PAUSE_S
        else:
            self._wait(now)
        return self._next - now

    def _wait(self, now: float) -> None:
        self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._next = now + self._pause_s
