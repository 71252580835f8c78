"""An order takes no longer on a busy day: what is read for it does not grow with the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt5crs.protocol.replies import OrderResult
from tests.unit.gateway.counter import Counter

_A_SECOND, _STEP_MS = 10, 100
_SEARCHES = 8
"""Of two seconds of history each: at most so many for an order."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Counter, list[int]]:
    """An order manager, and how many records of history each reading gave it."""
    counter, sizes = Counter(tmp_path), list[int]()
    for name in ("closed_orders", "deals"):
        asked = getattr(counter.broker, name)

        def counted(since: int, asked: Any = asked) -> Any:
            found = asked(since)
            sizes.append(len(found))
            return found

        monkeypatch.setattr(counter.broker, name, counted)
    return counter, sizes


def placed(counter: Counter) -> int:
    answer = counter.order(type="LIMIT", price=0.5, filling="RETURN")
    assert isinstance(answer, OrderResult)
    assert answer.outcome == "PLACED"
    return answer.order


def cancelled(counter: Counter, order: int) -> None:
    answer = counter.cancel(order)
    assert isinstance(answer, OrderResult)
    assert answer.outcome == "CANCELED"
    counter.order_manager.look()


def later(counter: Counter) -> None:
    counter.now += _STEP_MS
    counter.order_manager.look()


@pytest.mark.parametrize("deals", [False, True])
def test_orders_that_come_and_go(read: tuple[Counter, list[int]], deals: bool) -> None:
    counter, sizes = read
    old = placed(counter)
    for number in range(300):
        later(counter)
        cancelled(counter, placed(counter))
        if deals and number % 50 == 0:
            counter.order(volume=0.01)
    sizes.clear()
    later(counter)
    cancelled(counter, placed(counter))
    assert sum(sizes) <= _SEARCHES * 2 * _A_SECOND
    sizes.clear()
    cancelled(counter, old)
    assert sum(sizes) <= _SEARCHES * 2 * _A_SECOND
