"""A terminal that has just started shows a part of its lists, which looks like an account with less in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.broker.sim.terminal import Part
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.counter import LAG_S, MAGIC, Counter
from tests.unit.gateway.test_lag import all_late, pass_time, really_open, snapshot
from tests.unit.gateway.test_limits import filled, limit_of


def restarted_in_part(counter: Counter, shown: int, for_ms: int = 3000) -> Counter:
    """Gateway and terminal start again together; the terminal has loaded so much of each list."""
    again = counter.restarted(look=False)
    again.showing(part=Part(shown=shown, for_ms=for_ms))
    again.order_manager.look()
    return again


@pytest.mark.parametrize("lag_ms", [0, 700])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("margin_mode", ["HEDGING", "NETTING"])
def test_positions_that_are_not_loaded_yet_count_for_the_limits(
    tmp_path: Path, margin_mode: Any, kept: bool, lag_ms: int
) -> None:
    counter = Counter(tmp_path, margin_mode, max_position_volume=0.3, symbols=["EURUSD", "GBPUSD"])
    counter.showing(**all_late(lag_ms))
    filled(counter.order(symbol="GBPUSD"))
    filled(counter.order(volume=0.2))
    pass_time(counter, lag_ms)
    if kept:  # else the process dies before it is idle
        counter.order_manager.keep_seen()
    again = restarted_in_part(counter, 1)
    assert len(again.broker.books().positions) == 1
    for _ in range(4):
        assert limit_of(again.order()) == "max_position_volume"
        pass_time(again, 500)
    assert snapshot(again).unresolved
    pass_time(again, 2000)
    assert snapshot(again).unresolved == []
    assert limit_of(again.order()) == "max_position_volume"
    assert really_open(again) == pytest.approx(0.3)


def test_orders_that_are_not_loaded_yet_count_for_the_limits(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.5)
    for volume in (0.1, 0.4):
        placed = counter.order(volume=volume, type="LIMIT", price=1.0, filling="RETURN")
        assert isinstance(placed, OrderResult)
        assert placed.outcome == "PLACED"
    again = restarted_in_part(counter, 1)
    assert limit_of(again.order()) == "max_position_volume"
    pass_time(again, 3001)
    assert limit_of(again.order()) == "max_position_volume"
    assert snapshot(again).unresolved == []


def test_a_position_that_is_not_loaded_yet_is_closed_once_it_is(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    filled(counter.order())
    position = filled(counter.order()).position
    again = restarted_in_part(counter, 1)
    refused = again.close(position, client_order_id="close")
    assert isinstance(refused, Error)
    assert (refused.code, refused.field, refused.final) == ("NOT_READY", "loading", False)
    pass_time(again, 3001)
    filled(again.close(position, client_order_id="close"))
    assert really_open(again) == pytest.approx(0.1)


def test_what_was_closed_while_the_gateway_was_down_is_no_part(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.2)
    filled(counter.order())
    position = filled(counter.order()).position
    placed = counter.order(client_order_id="rests", volume=0.1, type="LIMIT", price=1.0, filling="RETURN")
    assert limit_of(placed) == "max_position_volume"
    counter.order_manager.keep_seen()
    counter.broker.command(Command(do="close", position=position))
    again = counter.restarted()
    assert again.order_manager.unsettled(MAGIC) == []
    filled(again.order())
    again.order_manager.keep_seen()
    assert {kind for kind, _, _ in again.journal.sightings()} == {"position", "result"}


def test_what_no_deal_explains_is_believed_after_a_while(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.1)
    filled(counter.order())
    again = counter.restarted(look=False)
    again.broker._positions.clear()  # gone, and its history with it
    again.broker._store._db.execute("DELETE FROM deals")
    assert limit_of(again.order()) == "max_position_volume"
    pass_time(again, int(LAG_S * 1000) + 1)
    assert "books.behind" in again.notes
    assert again.order_manager.unsettled(MAGIC) == []


def test_working_orders_count_while_a_terminal_lists_nothing_for_long(tmp_path: Path) -> None:
    """No money is bound in them, so the account does not tell that they are there."""
    counter = Counter(tmp_path, max_position_volume=0.1)
    placed = counter.order(type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    counter.showing(loading=True)
    for _ in range(3):
        pass_time(counter, int(LAG_S * 1000) + 1)
        counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
        assert limit_of(counter.order()) == "max_position_volume"
    counter.showing()
    pass_time(counter, 1)
    assert counter.order_manager.unsettled(MAGIC) == []
    counter.showing(loading=True)
    pass_time(counter, 1)
    assert counter.order_manager.unsettled(MAGIC) != []
    pass_time(counter, 600_001)
    assert counter.order_manager.unsettled(MAGIC) == [], "it is not waited for without end"


def test_the_loss_of_the_day_is_not_forgotten_while_the_history_loads(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_daily_loss=900.0)
    position = filled(counter.order(volume=1.0)).position
    counter.price(1.09)
    counter.broker.command(Command(do="close", position=position))
    pass_time(counter, 100)
    counter.order_manager.keep_seen()
    again = counter.restarted(look=False)
    again.limits = counter.limits
    again.showing(part=Part(shown=1, for_ms=30_000))
    again.order_manager.look()
    assert limit_of(again.order()) == "max_daily_loss"
    pass_time(again, 61_000)  # read once more, whole: from then on the deals alone count
    again.epoch = again.control.acquire(MAGIC, "c", "run", 60_000)
    assert limit_of(again.order()) == "max_daily_loss"
    assert not again.order_manager._ledger.may_be_loading()


def test_what_was_seen_is_not_written_while_a_part_is_shown(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    filled(counter.order())
    filled(counter.order())
    again = restarted_in_part(counter, 1)
    again.order_manager.keep_seen()
    twice = restarted_in_part(again, 1)
    assert [name.split("-")[0] for name in twice.order_manager.unsettled(MAGIC)] == ["position"]
