"""Every limit at its edge: what is just allowed goes out, what is just too much does not."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mt5crs.broker.interface import TradeRequest, TradeResult
from mt5crs.broker.sim.backend import Command
from mt5crs.broker.sim.faults import SendFault
from mt5crs.gateway.ledger import DAY_MS, Ledger
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.counter import MAGIC, Counter

WORTH = 110_010.0
"""One lot of EURUSD at the ask of 1.1001, in US dollars."""


def filled(reply: OrderResult | Error) -> OrderResult:
    assert isinstance(reply, OrderResult), reply
    assert reply.outcome == "FILLED"
    return reply


def limit_of(reply: OrderResult | Error) -> str:
    """The limit that refused; the refusal is final for its id."""
    assert isinstance(reply, Error), reply
    assert (reply.code, reply.final) == ("LIMIT", True)
    assert reply.remedy
    return reply.field


@pytest.mark.parametrize(
    ("limit", "allowed", "refused"),
    [
        ({"max_order_volume": 0.5}, {"volume": 0.5}, {"volume": 0.51}),
        ({"max_position_volume": 0.5}, {"volume": 0.5}, {"volume": 0.51}),
        ({"max_order_value": 0.5 * WORTH + 1}, {"volume": 0.5}, {"volume": 0.51}),
        ({"max_position_value": 0.5 * WORTH + 1}, {"volume": 0.5}, {"volume": 0.51}),
        ({"max_slippage_points": 10}, {"price": 1.1}, {"price": 1.0999}),
        ({"symbols": ["EURUSD"]}, {"symbol": "EURUSD"}, {"symbol": "GBPUSD"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
def test_each_limit_at_its_edge(
    tmp_path: Path, limit: dict[str, Any], allowed: dict[str, Any], refused: dict[str, Any]
) -> None:
    counter = Counter(tmp_path, **limit)
    assert limit_of(counter.order(**refused)) == next(iter(limit))
    assert counter.broker.books().positions == []
    filled(counter.order(**allowed))


@pytest.mark.parametrize("limit", [{"max_position_volume": 0.5}, {"max_position_value": 0.5 * WORTH + 1}])
def test_positions_and_working_orders_count_together(tmp_path: Path, limit: dict[str, Any]) -> None:
    counter = Counter(tmp_path, **limit)
    filled(counter.order(volume=0.2))
    placed = counter.order(volume=0.2, type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    assert placed.outcome == "PLACED"
    assert limit_of(counter.order(volume=0.11)) == next(iter(limit))
    counter.cancel(placed.order)
    filled(counter.order(volume=0.11))


def test_hedging_adds_both_sides_and_netting_takes_the_larger(tmp_path: Path) -> None:
    hedging = Counter(tmp_path / "hedging", max_position_volume=0.5)
    netting = Counter(tmp_path / "netting", "NETTING", max_position_volume=0.5)
    for counter in (hedging, netting):
        filled(counter.order(volume=0.4))
    assert limit_of(hedging.order(volume=0.2, side="SELL")) == "max_position_volume"
    filled(netting.order(volume=0.2, side="SELL"))
    assert limit_of(netting.order(volume=0.31)) == "max_position_volume"
    filled(netting.order(volume=0.3))


def test_what_is_left_of_a_partial_fill_counts_for_the_position_limit(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.6)
    counter.fault(liquidity=0.3)
    partial = counter.order(volume=0.5, filling="RETURN")
    assert isinstance(partial, OrderResult)
    assert (partial.outcome, partial.volume) == ("PARTIAL", 0.3)
    assert limit_of(counter.order(volume=0.11)) == "max_position_volume"  # 0.3 open, 0.2 working
    counter.cancel(partial.order)
    filled(counter.order(volume=0.11))


@pytest.mark.parametrize("theirs", ["position", "order"])
def test_on_a_netting_account_nobody_trades_into_what_another_magic_has(tmp_path: Path, theirs: str) -> None:
    counter = Counter(tmp_path, "NETTING")
    counter.limits[99] = counter.limits[MAGIC]
    other = {"magic": 99, "lease_epoch": counter.control.acquire(99, "other", "run", 60_000)}
    first = (
        filled(counter.order(**other))
        if theirs == "position"
        else counter.order(**other, type="LIMIT", price=1.0, filling="RETURN")
    )
    assert isinstance(first, OrderResult)
    before = counter.broker.books()
    for side in ("BUY", "SELL"):
        assert limit_of(counter.order(side=side)) == "symbol"
    after = counter.broker.books()
    assert (len(after.positions), len(after.orders)) == (len(before.positions), len(before.orders))
    filled(counter.order(**other, volume=0.2))  # its own


def test_another_magics_positions_do_not_count(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.5)
    counter.broker.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.5, magic=99))
    filled(counter.order(volume=0.5))


def test_daily_loss_counts_open_and_realised_and_ends_with_the_day(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_daily_loss=1000.0)
    position = filled(counter.order(volume=1.0)).position
    counter.price(1.0905)  # 960 lost, still open
    filled(counter.order(volume=0.01))
    counter.price(1.0895)
    assert limit_of(counter.order()) == "max_daily_loss"
    filled(counter.close(position))  # closing stays possible, and makes the loss a realised one
    assert limit_of(counter.order()) == "max_daily_loss"
    shown = counter.order_manager.guards()[0].daily_profit
    assert shown is not None
    assert shown < -1000
    counter.now += 24 * 3600 * 1000
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    counter.price(1.0895)
    filled(counter.order())


def test_the_days_loss_is_known_again_after_a_restart(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_daily_loss=1000.0)
    position = filled(counter.order(volume=1.0)).position
    counter.price(1.08)
    filled(counter.close(position))
    assert limit_of(counter.order()) == "max_daily_loss"
    counter.now += 2000
    again = counter.restarted()
    assert limit_of(again.order()) == "max_daily_loss"


def test_the_days_result_is_shown_before_anything_is_ordered(tmp_path: Path) -> None:
    """As after a restart under a halt: nobody may order, and the operator must see what the day brought."""
    counter = Counter(tmp_path)
    filled(counter.order(volume=1.0))
    counter.price(1.08)
    counter.order_manager.look()
    shown = counter.order_manager.guards()[0].daily_profit
    assert shown is not None
    assert shown < -1000
    counter.now += 2000
    again = counter.restarted()
    again.price(1.08)
    again.order_manager.look()
    assert again.order_manager.guards()[0].daily_profit == shown
    again.order_manager._account.daily = {}  # before the first look
    assert again.order_manager.guards()[0].daily_profit is None


def test_a_deal_dated_after_midnight_counts_for_the_new_day_whenever_it_is_seen(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    ledger = Ledger(counter.broker)
    midnight = (counter.now // DAY_MS + 1) * DAY_MS
    counter.now = midnight - 1000
    ledger.update(counter.now)
    counter.now = midnight + 1
    counter.broker.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=1.0, magic=MAGIC))
    counter.price(1.09)
    counter.broker.command(Command(do="close", position=counter.broker.books().positions[0].identifier))
    assert len(ledger.update(midnight - 1)) == 2  # this look began before midnight
    assert ledger.realised_today(MAGIC, midnight - 1) == 0.0
    ledger.update(midnight + 1000)
    assert ledger.realised_today(MAGIC, midnight + 1000) < -1000


def test_failures_in_a_row_open_the_breaker_and_only_a_new_order_counts(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_consecutive_failures=2)
    position = filled(counter.order()).position
    refused = SendFault(kind="retcode", retcode=10006)
    counter.fault(refused)
    counter.order()
    filled(counter.order())  # a success in between: counted from zero again
    counter.fault(refused, refused)
    counter.order()
    assert counter.order_manager.guards()[0].breaker_open is False
    counter.order()
    assert limit_of(counter.order()) == "max_consecutive_failures"
    filled(counter.close(position))
    assert limit_of(counter.order()) == "max_consecutive_failures"  # closing does not close the breaker
    counter.order_manager.reset_breaker(MAGIC)
    filled(counter.order())


def market_execution(counter: Counter, price: float) -> None:
    """From now on the price moves between check and fill, and the broker ignores `deviation`."""
    send = counter.broker.send

    def fill_anywhere(request: TradeRequest) -> TradeResult | None:
        counter.price(price)
        return send(msgspec.structs.replace(request, deviation=None))

    counter.broker.send = fill_anywhere  # type: ignore[method-assign]


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_a_fill_beyond_the_slippage_bound_is_a_failure(tmp_path: Path, side: str) -> None:
    counter = Counter(tmp_path, max_consecutive_failures=1, max_slippage_points=20)
    seen = 1.1001 if side == "BUY" else 1.1
    worse = 0.0005 if side == "BUY" else -0.0005
    filled(counter.order(side=side, price=seen))
    market_execution(counter, 1.1 + worse)
    slipped = filled(counter.order(side=side, price=seen))
    assert abs(slipped.price - seen) > 0.0004
    assert "order.slipped" in counter.notes
    assert limit_of(counter.order(side=side)) == "max_consecutive_failures"


def test_an_order_without_a_price_is_measured_against_the_quote_before_it(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_consecutive_failures=1, max_slippage_points=20)
    filled(counter.order())
    market_execution(counter, 1.1005)
    slipped = filled(counter.order())
    assert "order.slipped" in counter.notes
    assert limit_of(counter.order()) == "max_consecutive_failures"
    repeated = counter.order(client_order_id=slipped.client_order_id)  # its content is what the client sent
    assert isinstance(repeated, OrderResult)
    assert repeated.replayed


def test_an_order_without_a_price_is_not_filled_far_from_the_quote_before_it(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_slippage_points=20)
    send = counter.broker.send

    def jump(request: TradeRequest) -> TradeResult | None:
        counter.price(1.1005)
        return send(request)

    counter.broker.send = jump  # type: ignore[method-assign]
    done = counter.order()
    assert isinstance(done, OrderResult)
    assert (done.outcome, done.retcode) == ("REJECTED", 10004)


def test_a_fill_better_than_asked_is_no_failure(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_consecutive_failures=1, max_slippage_points=20)
    market_execution(counter, 1.09)
    filled(counter.order(price=1.1001))
    filled(counter.order())


def test_a_magic_number_without_limits_cannot_trade(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    counter.limits.clear()
    assert limit_of(counter.order()) == "magic"
    assert counter.broker.books().positions == []


def test_dry_run_checks_and_sends_nothing(tmp_path: Path) -> None:
    counter = Counter(tmp_path, dry_run=True, max_order_volume=0.5)
    assert limit_of(counter.order(volume=0.6)) == "max_order_volume"
    done = counter.order(volume=0.5)
    assert isinstance(done, OrderResult)
    assert (done.outcome, done.order, done.evidence) == ("DRY_RUN", 0, "gateway")
    books = counter.broker.books()
    assert (books.positions, books.orders, counter.broker.closed_orders(0)) == ([], [], [])


# --- the halt and the operator ----------------------------------------------------------------------------


def test_under_a_halt_only_an_operator_closes_and_cancels(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    placed = counter.order(type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    counter.control.halt("MAGIC", MAGIC, "ops", "drill")
    for refused in (counter.order(), counter.close(position), counter.cancel(placed.order)):
        assert isinstance(refused, Error)
        assert refused.code == "HALTED"
    assert len(counter.broker.books().positions) == 1
    counter.limits.clear()  # what a magic number without limits has left can still be closed
    done = counter.cancel(placed.order, operator=True, lease_epoch=1)
    assert isinstance(done, OrderResult)
    assert done.outcome == "CANCELED"
    filled(counter.close(position, operator=True, lease_epoch=1))
    assert counter.broker.books().positions == []


def test_without_a_halt_an_operator_touches_nothing(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    counter.control.halt("MAGIC", MAGIC + 1, "ops", "another magic number")
    refused = counter.close(position, operator=True)
    assert isinstance(refused, Error)
    assert (refused.code, refused.field, refused.final) == ("FORBIDDEN", "magic", False)
    assert len(counter.broker.books().positions) == 1


def test_an_operator_does_not_close_while_an_order_is_unresolved(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    counter.fault(SendFault(kind="lose_request"))
    counter.close(position)
    counter.control.halt("FLEET", 0, "ops", "drill")
    refused = counter.close(position, operator=True)
    assert isinstance(refused, Error)
    assert refused.code == "UNRESOLVED"
