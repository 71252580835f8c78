"""Clocks that are wrong: the day's result, evidence and the reconciler's record do not rest on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.gateway.ledger import DAY_MS, Ledger
from mt5crs.gateway.reader import Reader
from mt5crs.gateway.skew import Skew
from mt5crs.protocol.replies import Error, Snapshot
from mt5crs.protocol.requests import SyncAll
from mt5crs.reconciler.compare import compare, deals_wanted_from, first_deals_wanted_from
from mt5crs.reconciler.model import LocalState, evidence_of
from tests.unit.gateway.counter import MAGIC, START_MSC, Counter
from tests.unit.gateway.test_limits import filled, limit_of

NOON = START_MSC // DAY_MS * DAY_MS + DAY_MS // 2
HOUR = 3600_000


def lose(counter: Counter, closer: int = MAGIC) -> None:
    """About 1000 dollars, in a position that this or another program closes."""
    counter.price(1.1)
    position = filled(counter.order(volume=1.0)).position
    counter.price(1.09)
    counter.broker.command(Command(do="close", position=position, magic=closer))
    counter.price(1.1)


@pytest.mark.parametrize("closer", [0, MAGIC, 99])
def test_a_loss_is_that_of_the_positions_owner_whoever_closed_it(tmp_path: Path, closer: int) -> None:
    counter = Counter(tmp_path, max_daily_loss=900.0)
    lose(counter, closer)
    assert limit_of(counter.order()) == "max_daily_loss"
    assert limit_of(counter.restarted_with(max_daily_loss=900.0).order()) == "max_daily_loss"


@pytest.mark.parametrize("ahead_ms", [3 * HOUR, -3 * HOUR, 600_000])
def test_a_loss_is_seen_when_the_clock_was_wrong_at_the_start(tmp_path: Path, ahead_ms: int) -> None:
    counter = Counter(tmp_path, now=NOON, max_daily_loss=900.0)
    counter.showing(clock_ahead_ms=ahead_ms)
    again = counter.restarted_with(max_daily_loss=900.0)
    again.showing(clock_ahead_ms=ahead_ms)
    again.order_manager.look()
    again.showing()
    again.now += 1000
    lose(again)
    assert limit_of(again.order()) == "max_daily_loss"


def test_a_new_measuring_of_the_clock_counts_no_deal_twice(tmp_path: Path) -> None:
    counter = Counter(tmp_path, now=NOON)
    ledger = Ledger(counter.broker)
    lose(counter)
    ledger.update(counter.now)
    once = ledger.realised_today(MAGIC, counter.now)
    assert -1100 < once < -900
    for seen_as in (counter.now + DAY_MS, counter.now, counter.now - DAY_MS, counter.now, counter.now + HOUR):
        ledger.update(seen_as)
    assert ledger.update(counter.now) == []
    assert ledger.realised_today(MAGIC, counter.now) == once


def test_a_clock_put_back_over_midnight_brings_the_days_loss_back(tmp_path: Path) -> None:
    midnight = (START_MSC // DAY_MS + 1) * DAY_MS
    counter = Counter(tmp_path, now=midnight - HOUR)
    ledger = Ledger(counter.broker)
    lose(counter)
    ledger.update(midnight - 1000)
    ledger.update(midnight + 1000)
    assert ledger.realised_today(MAGIC, midnight + 1000) == 0.0
    ledger.update(midnight - 500)
    assert ledger.realised_today(MAGIC, midnight - 500) < -900


def test_a_history_that_loads_late_is_read_again(tmp_path: Path) -> None:
    counter = Counter(tmp_path, now=NOON)
    lose(counter)
    counter.now += HOUR
    counter.broker.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC))
    shown = counter.broker.deals(0)[-1:]
    ledger, deals = Ledger(counter.broker), counter.broker.deals
    counter.broker.deals = lambda since: [d for d in shown if d.time_msc >= since]  # type: ignore[method-assign]
    ledger.update(counter.now)
    counter.broker.deals = deals  # type: ignore[method-assign]
    counter.now += 61_000
    assert ledger.update(counter.now) == []  # old deals, and none of them news
    assert ledger.realised_today(MAGIC, counter.now) < -900


# --- skew --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [120_000, -120_000])
def test_no_order_goes_out_while_the_clock_is_wrong(tmp_path: Path, ahead_ms: int) -> None:
    counter = Counter(tmp_path)

    def a_quote() -> None:
        counter.now += 300
        counter.order_manager._watch.observe_ticks(["EURUSD"])

    a_quote()
    counter.showing(clock_ahead_ms=ahead_ms)
    for _ in range(2):
        a_quote()
    assert counter.order_manager._watch.skew.ms() == pytest.approx(ahead_ms, abs=1000)
    refused = counter.order()
    assert isinstance(refused, Error)
    assert (refused.code, refused.field, refused.final) == ("NOT_READY", "clock", False)
    assert ("ahead of" if ahead_ms > 0 else "behind") in refused.message
    counter.showing()
    counter.now += 61_000
    for _ in range(2):
        a_quote()
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    filled(counter.order())


def test_a_quote_that_was_old_when_it_came_is_no_skew() -> None:
    skew = Skew(lambda: 0.0)
    assert skew.ms() is None
    skew.happened(1000 * HOUR, 950 * HOUR)  # Friday's last quote, on Monday
    skew.happened(1000 * HOUR + 100, 1000 * HOUR)
    assert skew.ms() == 100


@pytest.mark.parametrize("ahead_ms", [0, 10 * 60_000, 3 * HOUR, -10 * 60_000, -3 * HOUR])
@pytest.mark.parametrize("older_deals", [False, True])
def test_the_reconcilers_record_does_not_rest_on_the_clock(
    tmp_path: Path, ahead_ms: int, older_deals: bool
) -> None:
    counter = Counter(tmp_path)
    if older_deals:
        filled(counter.order())
        counter.now += 30_000
    counter.showing(clock_ahead_ms=ahead_ms)
    order_manager = counter.order_manager
    reader = Reader(
        counter.broker,
        order_manager,
        order_manager._watch,
        order_manager._ledger,
        counter.control,
        order_manager._stream,
    )
    local: LocalState | None = None
    for _ in range(4):
        since = (
            first_deals_wanted_from(counter.broker.time_msc()) if local is None else deals_wanted_from(local)
        )
        snapshot = reader.answer(
            SyncAll(v=1, id="s", client="c", magic=MAGIC, whole_account=True, history_since_msc=since)
        )
        assert isinstance(snapshot, Snapshot)
        found = compare(local, evidence_of(snapshot, MAGIC))
        assert found.discrepancies == ()
        local = found.state
        counter.now += 5000
        filled(counter.order())
    assert len(local.positions) == (4 if older_deals else 3)
