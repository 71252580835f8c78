"""A linear model over the last changes of the quote; numpy does the sum, a data file holds the weights."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mt5crs.strategy.api import Option, Strategy, Trading


class LinearModel(Strategy):
    """Long while the model's forecast is above its threshold, else flat."""

    known_options: ClassVar[Mapping[str, Option]] = {
        "model": Option("text", "Name of the data file with the model.", default="model.json"),
        "slippage_points": Option("integer", "Most that a price may slip, in points.", default=50, ge=0),
    }

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        path = self.data_file(self.options["model"])
        try:
            model = json.loads(path.read_bytes())
            self._weights = np.asarray(model["weights"], dtype=float)
            self._threshold = float(model["threshold"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is no model of this strategy: {error!r}") from error
        self._slippage = self.options["slippage_points"]
        self._quotes: deque[float] = deque(maxlen=len(self._weights) + 1)

    def on_timer(self, trading: Trading) -> None:
        """Take in the quote, forecast, and hold one position or none."""
        quote = trading.quote(trading.symbol)
        self._quotes.append((quote.bid + quote.ask) / 2)
        if len(self._quotes) <= len(self._weights):
            return
        up = float(np.diff(np.asarray(self._quotes)) @ self._weights) > self._threshold
        mine = [position for position in trading.positions() if position.symbol == trading.symbol]
        if up and not mine:
            trading.market("BUY", trading.volume, max_slippage_points=self._slippage)
        elif mine and not up:
            trading.close(mine[0])
