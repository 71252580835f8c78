"""PingPong: opens a small position, holds it, closes it, for ever. Shows the API and keeps tests busy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mt5crs.strategy.api import Option, Strategy, Trading


class PingPong(Strategy):
    """Keeps up to `positions` times VOLUME open in SYMBOL; closes VOLUME of the oldest after `hold_s`.

    All it decides on is the broker's state, so a crash at any point needs no memory of its own.
    """

    known_options: ClassVar[Mapping[str, Option]] = {
        "positions": Option("number", "Most that are open, in times VOLUME.", default=2, ge=1, le=100),
        "hold_s": Option("number", "How long each is held, in seconds.", default=3, ge=0, le=86400),
        "slippage_points": Option(
            "number", "Most that a price may slip, in points.", default=50, ge=0, le=100_000
        ),
    }

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._positions = self.options["positions"]
        self._hold_ms = int(self.options["hold_s"] * 1000)
        self._slippage = int(self.options["slippage_points"])

    def on_timer(self, trading: Trading) -> None:
        """Open one until enough are open, then close the oldest when its time has come."""
        mine = [position for position in trading.positions() if position.symbol == trading.symbol]
        open_volume = sum(position.volume for position in mine)
        if open_volume + trading.volume <= self._positions * trading.volume + 1e-9:
            trading.market("BUY", trading.volume, max_slippage_points=self._slippage)
            return
        oldest = min(mine, key=lambda position: (position.time_msc, position.identifier))
        if trading.quote(trading.symbol).time_msc - oldest.time_update_msc >= self._hold_ms:
            trading.close(oldest, min(trading.volume, oldest.volume))
