"""PingPong: opens a small position, holds it, closes it, for ever. Shows the API and keeps tests busy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mt5crs.strategy.api import Strategy, Trading


class PingPong(Strategy):
    """Keeps up to `positions` times VOLUME open in SYMBOL; closes VOLUME of the oldest after `hold_s`.

    All it decides on is the broker's state, so a crash at any point needs no memory of its own.
    Options: positions (default 2), hold_s (default 3), slippage_points (default 50).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        unknown = set(options) - {"positions", "hold_s", "slippage_points"}
        if unknown:
            raise ValueError(f"PingPong knows no option {', '.join(sorted(unknown))}; remove it")
        self._positions = _number(options, "positions", 2, 1, 100)
        self._hold_ms = int(_number(options, "hold_s", 3, 0, 86400) * 1000)
        self._slippage = int(_number(options, "slippage_points", 50, 0, 100_000))

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


def _number(options: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"PingPong option {name} is {value!r}, expected a number from {low:g} to {high:g}")
    return value
