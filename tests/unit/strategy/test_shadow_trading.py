"""What a new version is told in the shadow: what the running one was told at this place, else the truth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mt5crs.protocol import requests
from mt5crs.protocol.records import Position, Tick
from mt5crs.settings.schema import load
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.api import OrderNotSentError, OrderRefusedError, Outcome, TradingSuspendedError
from mt5crs.strategy.shadow import SUPPRESSED, ShadowTrading
from mt5crs.strategy.tape import Call, Decision, Failed, Read
from tests.unit.reconciler.books import position as a_position

NOW = Tick(symbol="EURUSD", bid=2.0, ask=2.1, time_msc=9)
SEEN = Tick(symbol="EURUSD", bid=1.0, ask=1.1, time_msc=1)
FILLED = Outcome(
    client_order_id="x",
    result="FILLED",
    message="",
    retcode=0,
    order=1,
    position=2,
    position_ticket=2,
    volume=0.1,
    price=1.1,
)


class Gateway:
    """Answers what the running version had not asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def call(self, request: Any, _reply: Any, **_fields: Any) -> Any:
        self.asked.append(request)
        return SimpleNamespace(tick=NOW)


class Feed:
    """A reconciler that does not know."""

    def unfit(self) -> str:
        return "the reconciler says unknown"


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def trading(gateway: Gateway) -> ShadowTrading:
    settings = load(
        StrategySettings,
        {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PUBLIC_KEY": "0" * 64,
            "CLIENT_NAME": "inf-01-reconciler",
            "CLIENT_SECRET_KEY": "1" * 64,
            "MAGIC_NUMBER": "1",
            "EXPECTED_ACCOUNT_LOGIN": "1",
        },
    )
    return ShadowTrading(settings, gateway, Feed())  # type: ignore[arg-type]


def held(ticket: int) -> tuple[Position, ...]:
    return (a_position(ticket, 0.1),)


def on_tape(*reads: Read, decisions: tuple[Decision, ...] = ()) -> Call:
    return Call("run", 1, 0, "on_timer", reads=reads, decisions=decisions)


def bought(volume: float = 0.1, outcome: Outcome | None = FILLED, failed: Failed | None = None) -> Decision:
    return Decision("x", 0, "MARKET", "EURUSD", "BUY", volume, "s.py:1", outcome=outcome, failed=failed)


def test_answers_come_in_order_and_not_before_their_time(trading: ShadowTrading) -> None:
    before, after = held(1), held(2)
    trading.begin(
        on_tape(
            Read("positions", 0, positions=before),
            Read("positions", 1, positions=after),
            decisions=(bought(),),
        )
    )
    assert trading.positions() == before
    assert trading.positions() == before, "the effect of an order that it has not sent"
    assert trading.market("BUY", 0.1) == FILLED
    assert trading.positions() == after
    assert trading.made.asked_itself == 0


def test_the_same_as_before_is_what_was_before(trading: ShadowTrading) -> None:
    trading.begin(on_tape(Read("positions", 0, positions=held(1))))
    trading.begin(on_tape(Read("positions", 0, as_before=True)))
    assert trading.positions() == held(1)


def test_what_was_not_asked_is_asked_now_and_counted(trading: ShadowTrading, gateway: Gateway) -> None:
    trading.begin(on_tape(Read("quote", 0, symbol="EURUSD", tick=SEEN)))
    assert trading.quote("EURUSD") == trading.quote("EURUSD") == SEEN
    assert gateway.asked == []
    assert trading.quote("USDJPY") == NOW
    assert gateway.asked == [requests.TickQuery]
    with pytest.raises(TradingSuspendedError, match="says unknown"):
        trading.positions()
    assert trading.made.asked_itself == 2


def test_an_error_of_a_read_is_one_here_too(trading: ShadowTrading) -> None:
    trading.begin(on_tape(Read("quote", 0, symbol="EURUSD", failed=Failed("OrderNotSentError", "no answer"))))
    with pytest.raises(OrderNotSentError, match="no answer"):
        trading.quote("EURUSD")


def test_the_same_order_gets_what_became_of_it(trading: ShadowTrading) -> None:
    refused = Failed("OrderRefusedError", "too many", "LIMIT", "volume")
    trading.begin(on_tape(decisions=(bought(outcome=None, failed=refused), bought())))
    with pytest.raises(OrderRefusedError) as caught:
        trading.market("BUY", 0.1)
    assert (caught.value.code, caught.value.field, str(caught.value)) == (
        "LIMIT",
        "volume",
        "LIMIT (volume): too many",
    )
    assert trading.market("BUY", 0.1) == FILLED
    assert trading.market("BUY", 0.1).result == "DRY_RUN"
    assert [one.failed for one in trading.made.call().decisions] == [refused, None, None]


@pytest.mark.parametrize(
    "act",
    [
        lambda trading: trading.market("SELL", 0.1),
        lambda trading: trading.market("BUY", 0.2),
        lambda trading: trading.market("BUY", 0.1, symbol="USDJPY"),
        lambda trading: trading.pending("LIMIT", "BUY", 0.1, 1.0),
        lambda trading: trading.close(held(1)[0]),
    ],
)
def test_another_order_is_suppressed_and_noted(trading: ShadowTrading, gateway: Gateway, act: Any) -> None:
    trading.begin(on_tape(decisions=(bought(),)))
    outcome = act(trading)
    assert (outcome.result, outcome.message, outcome.volume) == ("DRY_RUN", SUPPRESSED, 0.0)
    assert gateway.asked == []
    (noted,) = trading.made.call().decisions
    assert noted.where.startswith("test_shadow_trading.py:")


def test_where_it_joins_the_orders_of_the_running_one_are_not_its_own(trading: ShadowTrading) -> None:
    trading.begin(on_tape(decisions=(bought(),)), joining=True, callback="on_start")
    assert trading.market("BUY", 0.1).result == "DRY_RUN"
    assert trading.made.call().number == -1
