"""Cache of reference data only: contract specifications (with trading hours) and the account's leverage.

Quotes, balances and the status of orders or positions change under one's feet; a cached one is a wrong one.
The cache refuses them by type, so that nobody can add them by mistake.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from mt5crs.protocol.records import SymbolSpec


class Leverage(msgspec.Struct, frozen=True):
    """Leverage limit of the account (100 means 1:100)."""

    value: int


ReferenceData = SymbolSpec | Leverage
D = TypeVar("D", SymbolSpec, Leverage)
_ALLOWED: Final = (SymbolSpec, Leverage)


class NotReferenceDataError(TypeError):
    """Something was to be cached that must be asked for every time."""


class ReferenceCache:
    """Remembers reference data for `ttl_s` seconds of monotonic time."""

    def __init__(self, ttl_s: float = 3600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: dict[str, tuple[float, ReferenceData]] = {}

    def get(self, key: str, kind: type[D], fetch: Callable[[], D]) -> D:
        """The cached value, or `fetch()`. Raises NotReferenceDataError for any other kind of data."""
        if kind not in _ALLOWED:
            raise NotReferenceDataError(
                f"{kind.__name__} must not be cached: only specifications and leverage are reference data"
            )
        entry = self._entries.get(f"{kind.__name__}:{key}")
        if entry is not None and self._clock() - entry[0] < self._ttl_s and isinstance(entry[1], kind):
            return entry[1]
        value = fetch()
        if type(value) not in _ALLOWED:
            raise NotReferenceDataError(
                f"{type(value).__name__} is not reference data: ask for it every time"
            )
        self._entries[f"{kind.__name__}:{key}"] = (self._clock(), value)
        return value
