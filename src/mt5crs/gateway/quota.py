"""How many requests a second each client may make."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

_PATIENCE_S = 2.0
"""A client that is refused as often as it may ask in so many seconds is cut off."""


class _Account(Struct):
    left: float
    at: float
    refused: float = 0.0


class Quota:
    """A bucket per client: it fills with `per_second` and holds one second's worth. Used by one thread."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = float(per_second)
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def times(self, factor: int) -> Quota:
        """Another one, of as many times as many."""
        return Quota(int(self._rate) * factor, self._clock)

    def take(self, client: str) -> bool:
        """Whether a client may make one more request now."""
        now = self._clock()
        account = self._accounts.get(client)
        if account is None:
            account = self._accounts[client] = _Account(left=self._rate, at=now)
        gained = (now - account.at) * self._rate
        account.at = now
        account.left = min(self._rate, account.left + gained)
        account.refused = max(0.0, account.refused - gained)
        if account.left < 1.0:
            account.refused += 1.0
            return False
        account.left -= 1.0
        return True

    def exhausted(self, client: str) -> bool:
        """Whether a client goes on asking though it is refused; forgiven with this answer."""
        account = self._accounts[client]
        if account.refused < self._rate * _PATIENCE_S:
            return False
        account.refused = 0.0
        return True
