"""The strategy process: bound to the reconciler, loading the user's class, leaving nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.protocol.records import Position, SymbolSpec, Tick
from mt5crs.protocol.replies import AccountState, OrderResult, StatusState
from mt5crs.protocol.requests import Status
from mt5crs.reconciler.publisher import Publisher
from mt5crs.settings.schema import SettingsError
from mt5crs.strategy.example import PingPong
from mt5crs.strategy.loading import load_strategy
from mt5crs.strategy.reference import Leverage, NotReferenceDataError, ReferenceCache
from tests.unit.reconciler.books import symbol_spec


def deals(fleet: Fleet) -> int:
    with fleet.client() as client:
        return sum(d.magic == MAGIC for d in client.snapshot(MAGIC, history_since_msc=0).deals)


def test_strategy_waits_for_the_reconciler_and_stops_trading_without_it(fleet: Fleet) -> None:
    fleet.settings["strategy"] = {
        "TICK_INTERVAL_S": 0.05,
        "STRATEGY_OPTIONS": '{"positions": 3, "hold_s": 0.1}',
        "RECONCILER_SILENCE_S": 1,
    }
    fleet.start_ready("gateway")
    fleet.start("strategy")
    fleet.wait(lambda: "no reconciler" in str(fleet.health("strategy").get("reason")), "the reason to wait")
    assert fleet.health("strategy")["state"] == "starting"
    assert deals(fleet) == 0
    fleet.start_ready("reconciler")
    fleet.wait(lambda: deals(fleet) > 3, "trades")
    fleet.kill("reconciler")
    fleet.wait(lambda: fleet.health("strategy").get("state") == "suspended", "the strategy suspended")
    stopped_at = deals(fleet)
    fleet.start_ready("reconciler")
    assert stopped_at <= deals(fleet)
    fleet.wait_healthy("strategy")
    fleet.wait(lambda: deals(fleet) > stopped_at, "trades again")


def test_a_successor_waits_until_its_reconciler_shows_what_was_traded_last(fleet: Fleet) -> None:
    """Taking over at once, it must not decide on a state from before the last order of its predecessor."""
    fleet.settings["strategy"] = {"TICK_INTERVAL_S": 0.05, "ORDER_TIMEOUT_S": 0.5}
    fleet.start_ready("gateway")
    fleet.start_ready("reconciler")
    before = fleet.state()
    fleet.start_ready("strategy")
    fleet.wait(lambda: deals(fleet) > 1, "trades")
    assert fleet.stop("strategy") == 0
    fleet.wait(lambda: len(fleet.state().positions or ()) == deals(fleet), "the reconciler to see them")
    after, traded = fleet.state(), deals(fleet)
    assert after.seq > before.seq
    assert fleet.stop("reconciler") == 0

    behind = Publisher(fleet.socket_path, before)  # a reconciler that has not heard of the trades yet
    try:
        fleet.start("strategy")
        said = "the reconciler does not show the last order's effect in time"
        fleet.wait(lambda: said in str(fleet.log("strategy")), "the refusal to decide")
        assert deals(fleet) == traded
        behind.publish(after)
        fleet.wait(lambda: deals(fleet) > traded, "trades again")
    finally:
        behind.close()


def test_scenario_12_strategy_suspends_while_the_reconciler_says_unknown(fleet: Fleet) -> None:
    fleet.settings["strategy"] = {"STRATEGY_OPTIONS": '{"positions": 1, "hold_s": 86400}'}
    for service in ("gateway", "reconciler", "strategy"):
        fleet.start_ready(service)
    # an order that is cut off on its way to the broker would rightly stay unresolved: none is, from here on
    fleet.wait(lambda: fleet.state().positions, "the only position")
    fleet.kill("gateway")
    fleet.wait(lambda: fleet.state().state == "unknown", "the reconciler not knowing")
    fleet.wait(lambda: fleet.health("strategy").get("state") == "suspended", "the strategy suspended")
    fleet.start_ready("gateway")
    fleet.wait_healthy("strategy")


def test_stopping_gives_the_lease_back_and_leaves_positions_open(fleet: Fleet) -> None:
    for service in ("gateway", "reconciler", "strategy"):
        fleet.start_ready(service)
    fleet.wait(lambda: fleet.state().positions, "an open position")
    assert fleet.stop("strategy") == 0
    with fleet.client() as client:
        leases = client.call(Status, StatusState, magic=MAGIC).leases
    assert [lease.remaining_ms for lease in leases] == [0]
    assert fleet.state().positions


def test_another_magic_number_than_the_reconcilers_is_not_traded(fleet: Fleet) -> None:
    fleet.settings["strategy"]["EXPECTED_ACCOUNT_LOGIN"] = 7
    fleet.start_ready("gateway")
    fleet.start_ready("reconciler")
    fleet.start("strategy")
    fleet.wait(lambda: "correct MAGIC_NUMBER" in str(fleet.health("strategy").get("reason")), "the reason")
    assert deals(fleet) == 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"STRATEGY": "nosuch"}, "is not installed (there is: example)"),
        ({"STRATEGY": "mt5crs.strategy.example:Nothing"}, "cannot be loaded"),
        ({"STRATEGY": "mt5crs.strategy.runner:Runner"}, "not a subclass"),
        ({"STRATEGY_OPTIONS": '{"hold_s": -1}'}, "expected a number from 0"),
        ({"STRATEGY_OPTIONS": '{"speed": 1}'}, "there is no option speed; remove it"),
        ({"STRATEGY_OPTIONS": "[]"}, "STRATEGY_OPTIONS"),
        ({"VOLUME": "0", "SYMBOL": "", "LEASE_TTL_S": "x"}, "LEASE_TTL_S"),
        ({"LEASE_TTL_S": "2", "LEASE_MARGIN_S": "1.5"}, "at most half"),
    ],
)
def test_bad_settings_end_with_status_78(fleet: Fleet, settings: dict[str, Any], text: str) -> None:
    fleet.settings["strategy"] |= settings
    fleet.start("strategy")
    assert fleet.wait_exit("strategy") == 78
    assert text in fleet.tail("strategy")


def test_the_example_is_found_by_name_and_by_path() -> None:
    assert load_strategy("example") is PingPong
    assert load_strategy("mt5crs.strategy.example:PingPong") is PingPong
    with pytest.raises(SettingsError, match="nosuch"):
        load_strategy("nosuch")


@pytest.mark.parametrize("kind", [Tick, Position, AccountState, OrderResult])
def test_reference_cache_refuses_what_changes(kind: Any) -> None:
    asked: list[int] = []
    with pytest.raises(NotReferenceDataError):
        ReferenceCache().get("x", kind, lambda: asked.append(1))
    assert asked == []


def test_reference_cache_refuses_a_value_of_another_kind() -> None:
    tick = Tick(symbol="EURUSD", bid=1.0, ask=1.1, time_msc=1)
    with pytest.raises(NotReferenceDataError):
        ReferenceCache().get("x", SymbolSpec, lambda: tick)


def test_reference_cache_remembers_for_its_time() -> None:
    now = [0.0]
    fetched: list[int] = []

    def fetch() -> SymbolSpec:
        fetched.append(1)
        return symbol_spec("EURUSD")

    cache = ReferenceCache(60, lambda: now[0])
    for moment, expected in ((0, 1), (59, 1), (61, 2)):
        now[0] = moment
        cache.get("EURUSD", SymbolSpec, fetch)
        assert len(fetched) == expected
    assert cache.get("account", Leverage, lambda: Leverage(50)).value == 50
