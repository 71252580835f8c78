"""What others are told of limits and what counts towards them. Safe to call from another thread."""

import math
from collections.abc import Callable, Mapping

from mt5crs.broker.interface import Books
from mt5crs.protocol.records import GuardInfo
from mt5crs.settings.gateway import Limits

from .account_view import AccountView
from .breaker import Breaker
from .phases import Phases
from .unresolved import Unresolved


class Guards:
    """Changes nothing."""

    def __init__(
        self,
        limits: Callable[[], dict[int, Limits]],
        phases: Phases | None,
        account: AccountView,
        breaker: Breaker,
        unresolved: Unresolved,
    ) -> None:
        self._limits = limits
        self._phases = phases
        self._account = account
        self._breaker = breaker
        self._unresolved = unresolved

    def in_force(self) -> dict[int, Limits]:
        """Limits by magic number, tightened by its phase."""
        own, phases = self._limits(), self._phases
        return own if phases is None else {each: phases.tightened(each, own[each]) for each in own}

    def account(self) -> tuple[Books, Mapping[int, float], Mapping[int, Limits]] | None:
        """Books, results of the day and limits in force as of the last look; None before the first.

        Safe to call from another thread.
        """
        noticed = self._account.noticed
        return None if noticed is None else (noticed, self._account.daily, self.in_force())

    def all(self) -> list[GuardInfo]:
        """What the risk gate knows, per magic number with limits. Safe to call from another thread."""
        found = []
        daily = self._account.daily
        for magic, limits in sorted(self.in_force().items()):
            failures = self._breaker.failures.get(magic, 0)
            result = daily.get(magic, math.nan)
            most = limits.max_consecutive_failures
            found.append(
                GuardInfo(
                    magic=magic,
                    dry_run=limits.dry_run,
                    unresolved=self._unresolved.of(magic),
                    consecutive_failures=failures,
                    breaker_open=most is not None and failures >= most,
                    daily_profit=round(result, 2) if math.isfinite(result) else None,
                )
            )
        return found
