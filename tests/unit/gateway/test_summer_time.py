"""The broker's own clock is set by an hour, markets close, quotes stand still for hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.broker.sim.faults import SendFault
from mt5crs.gateway import ledger
from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.counter import MAGIC, RESOLVE_AFTER_S, START_MSC, Counter
from tests.unit.gateway.test_broker_time import HOUR, NOON, lose
from tests.unit.gateway.test_lag import pass_time, really_open
from tests.unit.gateway.test_limits import filled
from tests.unit.gateway.test_resolve import declare, lost

MIDNIGHT = NOON + 12 * HOUR
BOTH_WAYS = pytest.mark.parametrize("shift_ms", [HOUR, -HOUR])


def set_clock(counter: Counter, shift_ms: int) -> None:
    counter.broker.command(Command(do="clock", shift_ms=shift_ms))


def earned(counter: Counter) -> float:
    counter.order_manager.look()
    found = counter.order_manager.guards()[0].daily_profit
    assert found is not None
    return found


@BOTH_WAYS
@pytest.mark.parametrize("restart", [False, True])
def test_the_days_loss_is_neither_forgotten_nor_doubled(tmp_path: Path, shift_ms: int, restart: bool) -> None:
    counter = Counter(tmp_path, now=NOON)
    lose(counter)
    once = earned(counter)
    assert -1100 < once < -900
    pass_time(counter, 90_000)
    set_clock(counter, shift_ms)
    if restart:
        counter = counter.restarted()
    assert earned(counter) == pytest.approx(once)
    for count in (2, 3):
        counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
        lose(counter)
        assert earned(counter) == pytest.approx(count * once, rel=0.05)
        pass_time(counter, 61_000)
        assert earned(counter) == pytest.approx(count * once, rel=0.05)


def test_no_deal_of_the_hour_before_is_news_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_SEEN_FEW", 1)
    counter = Counter(tmp_path, now=NOON)
    told = ledger.Ledger(counter.broker)
    trade = Command(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC)
    told.update(counter.now)
    for _ in range(20):
        counter.broker.command(trade)
        assert len(told.update(counter.broker.time_msc())) == 1
        counter.now += HOUR // 24
    set_clock(counter, -HOUR)
    counter.broker.command(trade)
    assert len(told.update(counter.broker.time_msc())) == 1


def test_a_clock_set_back_over_midnight_keeps_what_was_lost_after_it(tmp_path: Path) -> None:
    counter = Counter(tmp_path, now=MIDNIGHT + HOUR // 2)
    lose(counter)
    once = earned(counter)
    pass_time(counter, 90_000)
    set_clock(counter, -HOUR)
    assert earned(counter) == pytest.approx(once)  # dated tomorrow by now
    pass_time(counter, HOUR)
    assert earned(counter) == pytest.approx(once)


def test_a_clock_set_over_midnight_begins_the_next_day(tmp_path: Path) -> None:
    counter = Counter(tmp_path, now=MIDNIGHT - HOUR // 2)
    lose(counter)
    set_clock(counter, HOUR)
    assert earned(counter) == 0.0
    lose(counter)
    assert -1100 < earned(counter) < -900


@BOTH_WAYS
@pytest.mark.parametrize("kind", ["lose_reply", "late_fill"])
def test_an_order_without_a_reply_is_found_after_the_clock_was_set(
    tmp_path: Path, shift_ms: int, kind: str
) -> None:
    counter = Counter(tmp_path, now=NOON)
    filled(counter.order())
    pass_time(counter, 90_000)
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    counter.broker.faults.send.append(SendFault(kind=kind, delay_ms=2000))  # type: ignore[arg-type]
    counter.broker.faults.fail_books = 3
    reply = counter.order(client_order_id="lost")
    counter.broker.faults.fail_books = 0
    counter.broker.faults.fail_queries = 0
    set_clock(counter, shift_ms)
    if not isinstance(reply, OrderResult):
        reply = counter.order(client_order_id="lost")
    for _ in range(8):
        pass_time(counter, 1000)
    again = counter.order(client_order_id="lost")
    assert filled(again).replayed
    assert really_open(counter) == pytest.approx(0.2)


@BOTH_WAYS
def test_books_that_are_late_show_an_order_from_around_the_time(tmp_path: Path, shift_ms: int) -> None:
    counter = Counter(tmp_path, now=NOON)
    filled(counter.order())
    pass_time(counter, 90_000)
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    for moment in ("before", "after"):
        counter.showing(positions_lag_ms=2000, history_lag_ms=2000, deals_lag_ms=2000)
        filled(counter.order())
        if moment == "before":
            set_clock(counter, shift_ms)
        for _ in range(5):
            pass_time(counter, 1000)
        assert counter.order_manager.unsettled(MAGIC) == []
        assert "books.behind" not in counter.notes


@BOTH_WAYS
def test_an_order_is_given_up_after_a_time_that_no_clock_shortens(tmp_path: Path, shift_ms: int) -> None:
    counter = Counter(tmp_path, now=NOON)
    order = lost(counter)
    counter.order_manager.resolve_all()
    set_clock(counter, shift_ms)
    with pytest.raises(Refusal, match="a moment ago"):
        declare(counter, order)
    counter.now += int(RESOLVE_AFTER_S * 1000)
    assert declare(counter, order).outcome == "REJECTED"


@BOTH_WAYS
def test_a_clock_that_is_set_is_no_skew(tmp_path: Path, shift_ms: int) -> None:
    counter = Counter(tmp_path, now=NOON)
    for _ in range(3):
        counter.now += 300
        counter.order_manager._watch.observe_ticks(["EURUSD"])
    set_clock(counter, shift_ms)
    for _ in range(3):
        counter.now += 300
        counter.order_manager._watch.observe_ticks(["EURUSD"])
    filled(counter.order())


def test_the_account_is_told_after_the_clock_was_set_back(tmp_path: Path) -> None:
    counter = Counter(tmp_path, now=NOON)
    told: list[str] = []
    counter.order_manager._stream._publish = lambda publication: told.append(publication.topic)
    filled(counter.order())
    set_clock(counter, -HOUR)
    for _ in range(4):
        told.clear()
        counter.price(1.1 + 0.001 * (counter.now % 7))
        pass_time(counter, 1500)
        assert told == ["account"]


# --- sessions, and quotes that stand still -----------------------------------------------------------------


def test_over_a_weekend_orders_are_refused_and_a_position_is_closed_when_the_market_opens(
    tmp_path: Path,
) -> None:
    counter = Counter(tmp_path, now=NOON, max_order_value=1e6)
    position = filled(counter.order()).position
    rests = counter.order(type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(rests, OrderResult)
    counter.fault(closed=["EURUSD"])
    for _ in range(3):
        counter.now += 16 * HOUR
        counter.order_manager.look()
        counter.order_manager._watch.observe_ticks(["EURUSD"])
        counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
        for refused in (counter.close(position), counter.cancel(rests.order)):
            assert isinstance(refused, OrderResult)
            assert (refused.outcome, refused.retcode, refused.message) == ("REJECTED", 10018, "market closed")
    assert counter.order_manager.unsettled(MAGIC) == []
    counter.fault()
    filled(counter.close(position))
    assert really_open(counter) == 0.0
    ended = counter.cancel(rests.order)
    assert isinstance(ended, OrderResult)
    assert ended.outcome == "CANCELED"


@pytest.mark.parametrize("limit", ["max_order_value", "max_position_value"])
def test_a_quote_that_has_stood_still_for_long_is_no_measure_of_a_value(tmp_path: Path, limit: str) -> None:
    counter = Counter(tmp_path, now=NOON, **{limit: 1e6})
    filled(counter.order())
    counter.showing(still=["EURUSD"])
    counter.order_manager._watch.observe_ticks(["EURUSD"])
    counter.now += 2 * HOUR
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    refused = counter.order()
    assert isinstance(refused, Error)
    assert (refused.code, refused.field, refused.final) == ("LIMIT", limit, False)
    assert "no new quote for 7200 s, of which 900 s are taken (QUOTE_LIFE_S)" in refused.message
    filled(counter.close(counter.broker.books().positions[0].identifier))
    counter.showing()
    filled(counter.order())


@pytest.mark.parametrize(("life_s", "taken"), [(59.0, False), (61.0, True), (86_400.0, True)])
def test_how_old_a_quote_may_be_is_a_setting(tmp_path: Path, life_s: float, taken: bool) -> None:
    counter = Counter(tmp_path, now=NOON, quote_life_s=life_s, max_order_value=1e6)
    counter.showing(still=["EURUSD"])
    counter.order_manager._watch.observe_ticks(["EURUSD"])
    counter.now += 60_000 if life_s < 1000 else 23 * HOUR
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    reply = counter.order()
    if taken:
        filled(reply)
    else:
        assert isinstance(reply, Error)
        assert (reply.code, reply.field, reply.final) == ("LIMIT", "max_order_value", False)


def test_a_quote_that_stands_still_beside_others_is_no_skew(tmp_path: Path) -> None:
    counter = Counter(tmp_path, now=START_MSC, symbols=["EURUSD", "GBPUSD"])
    counter.showing(still=["GBPUSD"])
    for _ in range(300):
        counter.now += 1000
        assert counter.order_manager._watch.observe_ticks(["EURUSD", "GBPUSD"]) == {}
    skew = counter.order_manager._watch.skew.ms()
    assert skew is not None
    assert abs(skew) < 1000
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    filled(counter.order())
    counter.showing()  # it moves on, from a stamp of five minutes ago
    for _ in range(2):
        counter.now += 300
        counter.order_manager._watch.observe_ticks(["EURUSD", "GBPUSD"])
    filled(counter.order())
