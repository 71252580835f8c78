"""What a strategy's settings say of the reconciler it goes by."""

from __future__ import annotations

from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.statefeed import StateFeed


def state_feed_of(settings: StrategySettings) -> StateFeed:
    """The reconciler's state, not connected yet."""
    return StateFeed(
        settings.reconciler_socket,
        magic=settings.magic_number,
        login=settings.expected_account_login,
        silence_s=settings.reconciler_silence_s,
    )
