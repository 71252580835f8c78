"""The broker's clock, from stamps that are old, late, few, or wrong."""

from __future__ import annotations

import datetime
import math
from types import SimpleNamespace
from typing import Any

import pytest

from mt5crs.broker.clock import BrokerClock
from mt5crs.broker.mt5 import Mt5Broker, Terminal

HOUR = 3600_000
OFFSET = 2 * HOUR
"""The broker is two hours east of this host, whose clock is right."""


class World:
    """This host's clocks and the broker's."""

    def __init__(self) -> None:
        self.true_msc = 1_700_000_000_000
        self.clock = BrokerClock(lambda: self.true_msc / 1000)

    def broker_msc(self) -> int:
        return self.true_msc + OFFSET


def test_a_stamp_alone_says_nothing() -> None:
    world = World()
    world.clock.saw("quote of EURUSD", world.broker_msc() - 60 * HOUR)  # it is the weekend
    assert world.clock.now_msc() is None
    assert world.clock.age_s() is None


@pytest.mark.parametrize("others", [0, 3, 40])
def test_the_youngest_of_the_stamps_that_move_is_the_clock(others: int) -> None:
    """Gold pauses, one quote was old when it came, the euro trades."""
    world = World()
    for step in range(20):
        world.true_msc += 250
        for number in range(others):
            world.clock.saw(f"quote of old {number}", world.broker_msc() - (number + 1) * HOUR + step)
        world.clock.saw("quote of XAUUSD", 1_600_000_000_000)
        world.clock.saw("quote of EURUSD", world.broker_msc() - 40)
    now = world.clock.now_msc()
    assert now is not None
    assert abs(now - world.broker_msc()) <= 41
    world.true_msc += 30_000  # the market closes: it goes on
    now = world.clock.now_msc()
    assert now is not None
    assert abs(now - world.broker_msc()) <= 41
    assert world.clock.age_s() == 30


def test_a_broker_that_sets_its_clock_back_is_followed() -> None:
    world = World()
    for step in range(1300):
        world.true_msc += 1000
        back = HOUR if step > 600 else 0
        world.clock.saw("quote of EURUSD", world.broker_msc() - back)
    now = world.clock.now_msc()
    assert now is not None
    assert abs(now - (world.broker_msc() - HOUR)) < 1000


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_by_an_hour_is_followed_with_the_next_quote(hours: int) -> None:
    world = World()
    for step in range(300):
        world.true_msc += 1000
        world.clock.saw("quote of EURUSD", world.broker_msc())
        if step % 100 == 0:
            world.clock.saw("deals", world.broker_msc() if step else 0)
    world.true_msc += 1000
    world.clock.saw("quote of EURUSD", world.broker_msc() + hours * HOUR)
    world.clock.saw("deals", 0)  # a search that found none
    world.clock.saw("quote of EURUSD", 0)  # it was just selected
    assert world.clock.now_msc() == world.broker_msc() + hours * HOUR


@pytest.mark.parametrize("wrong_ms", [-7 * 60_000, 6 * 60_000, 40 * 60_000])
def test_the_terminals_clock_does_not_rest_on_this_hosts(wrong_ms: int) -> None:
    """Minutes ahead or behind are no time zone, and not seen when offsets are rounded to a quarter."""
    true_msc = 1_700_000_000_000
    quote = SimpleNamespace(bid=1.1, ask=1.1001, time_msc=true_msc + OFFSET)
    package: Any = SimpleNamespace(
        symbol_info=lambda _name: SimpleNamespace(name="EURUSD", select=True),
        symbol_select=lambda *_: True,
        symbol_info_tick=lambda _name: quote,
        symbols_get=lambda: [SimpleNamespace(name="EURUSD", select=True)],
        last_error=lambda: (1, "ok"),
    )
    terminal = Terminal(path="x", login=1, password="x", server="x", timeout_s=1.0, portable=True)
    broker = Mt5Broker(terminal, package=package, wall_msc=lambda: true_msc + wrong_ms)
    for _ in range(3):
        true_msc += 1000
        quote.time_msc += 1000
        broker.tick("EURUSD")
    assert math.isclose(broker.time_msc(), true_msc + OFFSET, abs_tol=1000)


@pytest.mark.parametrize("wrong_days", [0, 3, -3])
@pytest.mark.parametrize("old_hours", [1, 20, 60])
def test_before_anything_happens_the_terminals_clock_is_not_ahead_whatever_this_hosts_says(
    wrong_days: int, old_hours: int
) -> None:
    """A gateway that starts on a weekend, on a host whose clock nobody has put right yet: what a search
    begins with is not later than the broker's time, what it ends with not earlier than a day after it.
    """
    true_msc, wrong_ms = 1_700_000_000_000, wrong_days * 24 * HOUR
    quote = SimpleNamespace(bid=1.1, ask=1.1001, time_msc=true_msc + OFFSET - old_hours * HOUR)
    asked: list[float] = []

    def deals(_from: datetime.datetime, until: datetime.datetime) -> tuple[()]:
        asked.append(until.timestamp() * 1000)
        return ()

    package: Any = SimpleNamespace(
        symbol_info_tick=lambda _name: quote,
        symbols_get=lambda: [SimpleNamespace(name="EURUSD", select=True)],
        history_deals_get=deals,
        last_error=lambda: (1, "ok"),
    )
    terminal = Terminal(path="x", login=1, password="x", server="x", timeout_s=1.0, portable=True)
    broker = Mt5Broker(terminal, package=package, wall_msc=lambda: true_msc + wrong_ms)
    for _ in range(3):
        assert broker.time_msc() <= true_msc + OFFSET + 8 * 60_000, "offsets are rounded to a quarter"
        assert broker.deals(0) == []
        true_msc += 11 * 60_000  # it is measured once more
    assert min(asked) >= quote.time_msc + 24 * HOUR - 8 * 60_000
    if not wrong_days:
        assert min(asked) >= 1_700_000_000_000 + OFFSET + 24 * HOUR
