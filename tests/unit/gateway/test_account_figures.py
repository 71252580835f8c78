"""Money and limits as figures: what is not known is left out, and is never shown as nothing."""

from __future__ import annotations

import math
from pathlib import Path

from mt5crs.gateway.account_figures import DayBest, limits_used
from tests.unit.gateway.counter import MAGIC, Counter
from tests.unit.gateway.test_limits import filled

DAY_MS = 86_400_000


def test_a_drawdown_is_from_the_days_best() -> None:
    best = DayBest()
    assert best.drawdowns(DAY_MS, {1: -20.0, 2: 5.0}) == {1: 20.0, 2: 0.0}
    assert best.drawdowns(DAY_MS + 1, {1: 30.0, 2: -5.0}) == {1: 0.0, 2: 10.0}
    assert best.drawdowns(2 * DAY_MS - 1, {1: 10.0}) == {1: 20.0}


def test_a_day_of_the_broker_begins_with_no_drawdown() -> None:
    best = DayBest()
    best.drawdowns(DAY_MS, {1: 100.0})
    assert best.drawdowns(2 * DAY_MS, {1: 0.0}) == {1: 0.0}


def test_a_result_that_is_not_known_has_no_drawdown() -> None:
    best = DayBest()
    best.drawdowns(DAY_MS, {1: 100.0})
    assert best.drawdowns(DAY_MS, {1: math.nan}) == {}
    assert best.drawdowns(DAY_MS, {1: 90.0}) == {1: 10.0}


def test_working_orders_count_as_if_they_were_filled(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.4, max_daily_loss=100.0)
    filled(counter.order(volume=0.1))
    counter.order(volume=0.1, type="LIMIT", price=1.05)
    account = counter.order_manager.account()
    assert account is not None
    books, _, limits = account
    used = limits_used(books, {MAGIC: -25.0}, limits)
    assert used == {(MAGIC, "max_position_volume"): 0.5, (MAGIC, "max_daily_loss"): 0.25}
    assert limits_used(books, {MAGIC: 25.0}, limits)[MAGIC, "max_daily_loss"] == 0
    for unknown in ({}, {MAGIC: math.nan}):
        assert (MAGIC, "max_daily_loss") not in limits_used(books, unknown, limits)


def test_before_the_first_look_nothing_is_known(tmp_path: Path) -> None:
    assert Counter(tmp_path, look=False).order_manager.account() is None
