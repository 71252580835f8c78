"""How long an order may wait before it is sent, when the gateway or its host stands still meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt5crs.broker.interface import TooLateError, TradeRequest, TradeResult
from mt5crs.gateway.arrivals import Arrivals
from mt5crs.protocol.replies import Error
from mt5crs.protocol.requests import OrderQuery, OrderSend
from tests.unit.gateway.counter import MAGIC, Counter
from tests.unit.gateway.test_limits import filled
from tests.unit.orders import TERMS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_a_message_waits_since_it_is_read_while_nothing_holds_the_thread_up() -> None:
    clock = Clock()
    arrivals = Arrivals(clock)
    for _ in range(20):
        arrivals.turn(0.25)
        clock.passes(0.3)  # it slept, and was waited for a little
        arrivals.turn()
        assert arrivals.since() == clock.now


@pytest.mark.parametrize("asleep", [True, False])
def test_what_is_read_after_a_freeze_waits_since_it_began(asleep: bool) -> None:
    clock = Clock()
    arrivals = Arrivals(clock)
    arrivals.turn(0.25)
    if not asleep:  # it was frozen in the middle of its work
        arrivals.turn()
    clock.passes(10)
    arrivals.turn()
    assert arrivals.since() == 100.0
    for _ in range(19):  # what TCP repeats comes as much later as the freeze took
        clock.passes(0.5)
        arrivals.turn(0.5)
        assert arrivals.since() == 100.0
    clock.passes(0.6)
    arrivals.turn()
    assert arrivals.since() == clock.now


def test_a_thread_that_is_always_late_does_not_make_orders_ever_older() -> None:
    clock = Clock()
    arrivals = Arrivals(clock)
    for _ in range(100):
        clock.passes(0.4)
        arrivals.turn()
        assert clock.now - arrivals.since() <= 2


def test_an_order_that_came_too_late_to_the_terminal_is_refused_and_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(tmp_path)

    def frozen(request: TradeRequest) -> TradeResult | None:
        raise TooLateError(-1, f"{request.comment}: too late")

    with monkeypatch.context() as patched:
        patched.setattr(counter.broker, "send", frozen)
        refused = counter.order()
    assert isinstance(refused, Error)
    assert (refused.code, refused.final) == ("EXPIRED", True)
    assert counter.order_manager.unresolved(MAGIC) == []
    again = counter.restarted()
    query = OrderQuery(v=1, id="q", client="c", magic=MAGIC, client_order_id="o1")
    told = again.order_manager.query(query)
    assert isinstance(told, Error)
    assert told.code == "EXPIRED"
    filled(again.order())


def test_the_terminal_is_told_how_long_an_order_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(tmp_path)
    sent: list[TradeRequest] = []

    def send(request: TradeRequest) -> TradeResult | None:
        sent.append(request)
        return None

    monkeypatch.setattr(counter.broker, "send", send)
    monkeypatch.setattr("mt5crs.gateway.order_manager.elapsed_s", lambda: 1000.0)
    head = {**counter._head(), "valid_ms": 5000}
    counter.order_manager.submit(OrderSend(**{**TERMS, **head}), lambda: 1500)
    assert sent[0].until_s == 1003.5
