"""How much of the terminal's time each client's reads take: beside orders, a share of it and no more."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from mt5crs.service.elapsed import elapsed_s

SHARE = 0.2
"""Of the terminal's time, for the reads of one client."""
_AT_ONCE_S = 0.25
"""So much a client that has read nothing for a while may take at once."""
_TRADING_S = 1.0
"""For so long after an order the terminal counts as trading."""


class _Account(Struct):
    left_s: float
    at: float


class ReadingTime:
    """An account per client, filled with its share of the time that passes. Used under the caller's lock."""

    def __init__(self, clock: Callable[[], float] = elapsed_s) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._ordered_at = float("-inf")

    def ordered(self) -> None:
        """An order got to the terminal."""
        self._ordered_at = self._clock()

    def took(self, client: str, seconds: float) -> None:
        """A read of a client took so long."""
        self._filled(client).left_s -= seconds

    def must_wait(self, client: str) -> bool:
        """Whether a client has read so much that its next read would keep orders waiting."""
        if client not in self._accounts or self._clock() - self._ordered_at > _TRADING_S:
            return False
        return self._filled(client).left_s <= 0

    def _filled(self, client: str) -> _Account:
        now = self._clock()
        account = self._accounts.setdefault(client, _Account(_AT_ONCE_S, now))
        account.left_s = min(_AT_ONCE_S, account.left_s + (now - account.at) * SHARE)
        account.at = now
        return account
