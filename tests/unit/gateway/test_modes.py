"""What a symbol does not take is refused before it is sent; what its market refuses is told as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.broker.sim.faults import Faults, Rules, SendFault
from mt5crs.gateway.reader import Reader
from mt5crs.protocol.records import SymbolSpec
from mt5crs.protocol.replies import Error, OrderResult, SymbolReply
from mt5crs.protocol.requests import SymbolQuery
from tests.unit.gateway.counter import MAGIC, Counter
from tests.unit.gateway.test_lag import pass_time, really_open
from tests.unit.gateway.test_limits import filled, limit_of

LIMIT: dict[str, Any] = {"type": "LIMIT", "price": 1.0, "filling": "RETURN"}


def takes(counter: Counter, **rules: Any) -> None:
    counter.fault(rules={"EURUSD": Rules(**rules)})


def field_of(counter: Counter, reply: OrderResult | Error) -> str:
    """Which field is refused; nothing went to the broker."""
    assert isinstance(reply, Error), reply
    assert (reply.code, reply.final) == ("BAD_FIELD", True)
    assert [order for order in counter.broker._store.closed_orders(0) if order.state == "REJECTED"] == []
    return reply.field


@pytest.mark.parametrize(
    ("rules", "order", "field"),
    [
        ({"mode": "DISABLED"}, {}, "symbol"),
        ({"mode": "CLOSE_ONLY"}, {}, "symbol"),
        ({"mode": "CLOSE_ONLY"}, LIMIT, "symbol"),
        ({"mode": "LONG_ONLY"}, {"side": "SELL"}, "side"),
        ({"mode": "SHORT_ONLY"}, {}, "side"),
        ({"kinds": ["LIMIT"]}, {}, "type"),
        ({"kinds": ["MARKET"]}, LIMIT, "type"),
        ({"gtc": False}, LIMIT, "expiration_msc"),
        ({"specified": False}, {**LIMIT, "expiration_msc": 2 * 10**12}, "expiration_msc"),
        ({"sl": False}, {"sl": 1.0}, "sl"),
        ({"tp": False}, {"tp": 1.2}, "tp"),
        ({"stops_level": 100}, {"sl": 1.0995}, "sl"),
        ({"stops_level": 100}, {"tp": 1.1009}, "tp"),
        ({"stops_level": 100}, {"side": "SELL", "sl": 1.1006}, "sl"),
        ({"stops_level": 100}, {**LIMIT, "price": 1.0995}, "price"),
        ({"stops_level": 100}, {**LIMIT, "sl": 0.9995}, "sl"),
    ],
)
def test_what_a_symbol_does_not_take_is_refused_with_the_field(
    tmp_path: Path, rules: Any, order: Any, field: str
) -> None:
    counter = Counter(tmp_path)
    takes(counter, **rules)
    sent: list[Any] = []
    counter.broker.send = sent.append  # type: ignore[assignment]
    assert field_of(counter, counter.order(**order)) == field
    assert sent == []


@pytest.mark.parametrize(
    ("rules", "order"),
    [
        ({"mode": "LONG_ONLY"}, {}),
        ({"mode": "SHORT_ONLY"}, {"side": "SELL"}),
        ({"kinds": ["LIMIT"]}, LIMIT),
        ({"gtc": False}, {}),  # a market order does not rest
        ({"gtc": False}, {**LIMIT, "expiration_msc": 2 * 10**12}),
        ({"specified": False}, LIMIT),
        ({"stops_level": 100}, {"sl": 1.099, "tp": 1.101}),
        ({"stops_level": 100}, {**LIMIT, "price": 1.0991}),
        ({"execution": "INSTANT"}, {}),
    ],
)
def test_what_a_symbol_takes_is_sent(tmp_path: Path, rules: Any, order: Any) -> None:
    counter = Counter(tmp_path)
    takes(counter, **rules)
    reply = counter.order(**order)
    assert isinstance(reply, OrderResult), reply
    assert reply.outcome == ("PLACED" if "type" in order else "FILLED"), reply


@pytest.mark.parametrize("mode", ["CLOSE_ONLY", "LONG_ONLY", "SHORT_ONLY"])
def test_a_position_is_closed_whatever_may_still_be_opened(tmp_path: Path, mode: Any) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    takes(counter, mode=mode)
    filled(counter.close(position))
    assert really_open(counter) == 0.0


def test_within_the_freeze_level_a_close_and_a_cancel_are_refused_and_block_nothing(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order(sl=1.0995)).position
    placed = counter.order(**{**LIMIT, "price": 1.0995})
    assert isinstance(placed, OrderResult)
    takes(counter, freeze_level=100)
    for refused in (counter.close(position), counter.cancel(placed.order)):
        assert isinstance(refused, OrderResult)
        assert (refused.outcome, refused.retcode) == ("REJECTED", 10029)
    assert counter.order_manager.unsettled(MAGIC) == []
    counter.price(1.102)
    filled(counter.close(position))
    assert isinstance(ended := counter.cancel(placed.order), OrderResult)
    assert ended.outcome == "CANCELED"


@pytest.mark.parametrize(
    ("retcode", "says"), [(10004, "requote"), (10020, "prices changed"), (10021, "no quotes")]
)
@pytest.mark.parametrize("closes", [False, True])
def test_a_price_that_is_gone_is_a_refusal_and_the_next_order_is_taken(
    tmp_path: Path, retcode: int, says: str, closes: bool
) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    counter.fault(SendFault(kind="retcode", retcode=retcode), rules={"EURUSD": Rules(execution="INSTANT")})
    refused = counter.close(position) if closes else counter.order()
    assert isinstance(refused, OrderResult)
    assert (refused.outcome, refused.retcode, refused.message) == ("REJECTED", retcode, says)
    filled(counter.close(position) if closes else counter.order())
    assert really_open(counter) == pytest.approx(0.0 if closes else 0.2)


def test_in_instant_execution_a_market_that_moved_is_a_requote_with_the_new_price(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    takes(counter, execution="INSTANT")
    quote = counter.broker.tick

    def old(name: str) -> Any:
        tick = quote(name)
        counter.price(1.2)  # between the gateway's look and the trade server's
        return tick

    counter.broker.tick = old  # type: ignore[method-assign]
    refused = counter.order(price=1.1001, max_slippage_points=10)
    assert isinstance(refused, OrderResult)
    assert (refused.outcome, refused.retcode) == ("REJECTED", 10004)
    assert "1.2001" in refused.message
    assert really_open(counter) == 0.0


def test_what_was_filled_before_the_rest_was_cancelled_stays(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.5)
    placed = counter.order(**LIMIT, volume=0.5)
    assert isinstance(placed, OrderResult)
    counter.fault(liquidity=0.2)
    counter.price(0.9999)
    pass_time(counter, 1)
    cancelled = counter.cancel(placed.order)
    assert isinstance(cancelled, OrderResult)
    assert cancelled.outcome == "CANCELED"
    counter.fault()
    assert limit_of(counter.order(volume=0.4)) == "max_position_volume"
    filled(counter.order(volume=0.3))
    assert really_open(counter) == pytest.approx(0.5)


@pytest.mark.parametrize("lag_ms", [0, 700])
def test_a_fill_after_a_cancel_was_answered_is_told_and_counts(tmp_path: Path, lag_ms: int) -> None:
    counter = Counter(tmp_path, max_position_volume=0.5)
    placed = counter.order(**LIMIT, volume=0.5)
    assert isinstance(placed, OrderResult)
    counter.fault(SendFault(kind="fill_after", delay_ms=1000))
    cancelled = counter.cancel(placed.order)
    assert isinstance(cancelled, OrderResult)
    assert cancelled.outcome == "CANCELED"
    counter.showing(positions_lag_ms=lag_ms)
    for _ in range(4):
        pass_time(counter, 500)
    assert really_open(counter) == 0.5
    assert limit_of(counter.order()) == "max_position_volume"
    pass_time(counter, lag_ms)
    assert [p.volume for p in counter.broker.books().positions] == [0.5]
    assert counter.order_manager.unsettled(MAGIC) == []


def test_clients_are_told_the_specification_of_the_protocol(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    takes(counter, stops_level=7)
    order_manager = counter.order_manager
    reader = Reader(
        counter.broker,
        order_manager,
        order_manager._watch,
        order_manager._ledger,
        counter.control,
        order_manager._stream,
    )
    reply = reader.answer(SymbolQuery(v=1, id="s", client="c", magic=MAGIC, symbol="EURUSD"))
    assert isinstance(reply, SymbolReply)
    assert type(reply.spec) is SymbolSpec
    assert reply.spec.stops_level == 7


def test_a_command_changes_what_a_symbol_takes(tmp_path: Path) -> None:
    """As a drill does, through the inbox."""
    counter = Counter(tmp_path)
    faults = Faults(rules={"EURUSD": Rules(mode="CLOSE_ONLY")})
    counter.broker.command(Command(do="faults", faults=faults))
    spec = counter.broker.symbol("EURUSD")
    assert spec is not None
    assert (spec.mode, spec.trade_allowed, spec.specification().trade_allowed) == ("CLOSE_ONLY", False, False)
