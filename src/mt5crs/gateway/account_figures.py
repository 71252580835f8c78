"""Money of the account and use of the limits, for figures and alerts. Keeps the best results of the day."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from mt5crs.broker.interface import Books
from mt5crs.protocol.records import Order, Position
from mt5crs.settings.gateway import Limits

from .ledger import DAY_MS
from .risk import exposure


@dataclass(frozen=True)
class AccountFigures:
    """Money is in account currency. Drawdowns by magic number.

    Limits used by magic number and name of the limit: 1 is all of it.
    """

    balance: float
    equity: float
    margin_free: float
    drawdowns: Mapping[int, float]
    limits_used: Mapping[tuple[int, str], float]


class DayBest:
    """The best result of each magic number since the broker's day, or this process, began."""

    def __init__(self) -> None:
        self._day = -1
        self._best: dict[int, float] = {}

    def drawdowns(self, time_msc: int, daily: Mapping[int, float]) -> dict[int, float]:
        """How far each result is below its best, which is 0 at least. What is not known is left out."""
        day = time_msc // DAY_MS
        if day != self._day:
            self._day, self._best = day, {}
        found = {}
        for magic, result in daily.items():
            if math.isfinite(result):
                self._best[magic] = max(self._best.get(magic, 0.0), result)
                found[magic] = self._best[magic] - result
        return found


def limits_used(
    books: Books, daily: Mapping[int, float], limits: Mapping[int, Limits]
) -> dict[tuple[int, str], float]:
    """Part of each limit that is used, working orders included; what is not set or not known is left out."""
    netting = books.identity.margin_mode != "HEDGING"
    positions: defaultdict[int, list[Position]] = defaultdict(list)
    orders: defaultdict[int, list[Order]] = defaultdict(list)
    for position in books.positions:
        positions[position.magic].append(position)
    for order in books.orders:
        orders[order.magic].append(order)
    found: dict[tuple[int, str], float] = {}
    for magic, limit in limits.items():
        could_be_open = exposure(positions[magic], orders[magic], netting=netting)
        found[magic, "max_position_volume"] = sum(could_be_open.values()) / limit.max_position_volume
        result = daily.get(magic)
        if limit.max_daily_loss is not None and result is not None:
            found[magic, "max_daily_loss"] = -min(result, 0.0) / limit.max_daily_loss
    return {key: used for key, used in found.items() if math.isfinite(used)}
