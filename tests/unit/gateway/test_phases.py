"""A phase at its edges: what its limits stop, who may change it, and what breaks it."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mt5crs.broker.sim.faults import SendFault
from mt5crs.gateway.refusal import Refusal
from mt5crs.phases import profile as profile_module
from mt5crs.phases.profile import profiles
from mt5crs.phases.record import sign, text_of
from mt5crs.protocol.replies import CheckResult, Error, OrderResult
from mt5crs.protocol.requests import OrderCheck
from mt5crs.service.database import UnusableError
from tests.unit.gateway.counter import MAGIC, START_MSC
from tests.unit.gateway.phased import (
    ACCOUNT,
    CONSTRAINED,
    DAY_MS,
    MICRO,
    SCALED,
    SHADOW,
    Phased,
    key,
)
from tests.unit.gateway.test_limits import filled, limit_of
from tests.unit.orders import TERMS

WORTH: dict[str, Any] = {"volume": 0.01, "expected_profit": 1.0}
"""An order that micro allows: 0.55 dollars of margin, and more than 1.5 % of that expected."""


def with_limits(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Change limits of a profile for this test."""
    changed = dict(profiles())
    limits = msgspec.structs.replace(changed[name].limits, **changes)
    changed[name] = msgspec.structs.replace(changed[name], limits=limits)
    for module in ("mt5crs.gateway.phases", "mt5crs.phases.profile"):
        monkeypatch.setattr(f"{module}.profiles", lambda: changed)
    assert profile_module.named(name) is changed[name]


@pytest.fixture
def micro(tmp_path: Path) -> Phased:
    phased = Phased(tmp_path)
    phased.promote(MICRO)
    return phased


def fact(phased: Phased, name: str) -> float | None:
    return {each.name: each.value for each in phased.state().facts}[name]


# --- orders ------------------------------------------------------------------------------------------------


def test_without_a_record_orders_are_checked_and_recorded_and_never_sent(tmp_path: Path) -> None:
    phased = Phased(tmp_path)
    assert phased.profile() == SHADOW
    reply = phased.order(volume=0.01)
    assert isinstance(reply, OrderResult)
    assert (reply.outcome, reply.evidence) == ("DRY_RUN", "gateway")
    assert limit_of(phased.order(volume=0.02)) == "trade_size"  # 1.10 dollars
    books = phased.broker.books()
    assert (books.positions, books.orders, phased.broker.closed_orders(0)) == ([], [], [])
    assert (fact(phased, "dry_runs"), fact(phased, "orders"), fact(phased, "reject_percent")) == (1, 2, 50)
    kept = phased.journal.find(MAGIC, "o1")
    assert kept is not None
    assert isinstance(kept.answer, OrderResult)
    assert kept.answer.outcome == "DRY_RUN"


def test_a_fleet_without_phases_trades_as_before(tmp_path: Path) -> None:
    phased = Phased(tmp_path)
    phased.phases._signers = None
    filled(phased.order(volume=5.0))
    state = phased.state()
    assert (state.enforced, state.profile, state.facts) == (False, "", [])
    with pytest.raises(Refusal, match="this gateway uses no phases"):
        phased.promote(MICRO)


@pytest.mark.parametrize(
    ("change", "allowed", "refused"),
    [
        ({"trade_size": 1.2}, {"volume": 0.02}, {"volume": 0.03}),
        ({"position_limit": 1.2, "trade_size": 1.2}, {"volume": 0.02}, {"volume": 0.02}),
        ({"min_expected_profit_percent": 100.0}, {"expected_profit": 0.56}, {"expected_profit": 0.54}),
        ({"max_orders_per_minute": 1}, {}, {}),
        ({"max_instruments": 1}, {}, {"symbol": "GBPUSD"}),
        ({"symbols": ["EURUSD"]}, {}, {"symbol": "GBPUSD"}),
        (
            {"price_collar_percent": 1.0},
            {"type": "LIMIT", "price": 1.0901, "filling": "RETURN"},
            {"type": "LIMIT", "price": 1.08, "filling": "RETURN"},
        ),
        ({"max_slippage_points": 10}, {"price": 1.1}, {"price": 1.0999}),
    ],
    ids=lambda value: next(iter(value), "same") if isinstance(value, dict) else str(value),
)
def test_each_limit_of_a_phase_at_its_edge(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    allowed: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    with_limits(monkeypatch, MICRO, **change)
    phased = Phased(tmp_path, symbols=["EURUSD", "GBPUSD"])
    phased.promote(MICRO)
    reply = phased.order(**{**WORTH, **allowed})
    assert isinstance(reply, OrderResult), reply
    assert reply.outcome in ("FILLED", "PLACED")
    field = "expected_profit" if "min_expected_profit_percent" in change else next(iter(change))
    assert limit_of(phased.order(**{**WORTH, **refused})) == field


def test_an_order_that_does_not_say_what_it_expects_is_refused_where_the_phase_asks(micro: Phased) -> None:
    reply = micro.order(volume=0.01)
    assert limit_of(reply) == "expected_profit"
    assert isinstance(reply, Error)
    assert "1.5 % of its margin" in reply.message


def test_order_check_says_what_an_order_would_be_told(micro: Phased) -> None:
    head = {"v": 1, "id": "c", "client": "c", "magic": MAGIC}
    with pytest.raises(Refusal, match="trade_size"):
        micro.order_manager.check(OrderCheck(**head, **{**TERMS, **WORTH, "price": 1.1001, "volume": 1.0}))
    assert isinstance(
        micro.order_manager.check(OrderCheck(**head, **{**TERMS, **WORTH, "price": 1.1001})), CheckResult
    )


def test_limits_that_are_loosened_meanwhile_stay_within_the_phase(micro: Phased) -> None:
    filled(micro.order(**WORTH))
    wide = {"max_order_volume": 1e6, "max_position_volume": 1e6, "max_order_value": None}
    # As the gateway does when it has read its list of clients and limits again.
    micro.limits = {MAGIC: msgspec.structs.replace(micro.limits[MAGIC], **wide)}
    assert limit_of(micro.order(**{**WORTH, "volume": 1.0})) == "trade_size"
    micro.limits = {MAGIC: msgspec.structs.replace(micro.limits[MAGIC], max_order_volume=0.005)}
    assert limit_of(micro.order(**WORTH)) == "max_order_volume"


def test_the_settings_can_hold_a_phase_down_but_not_lift_it(tmp_path: Path) -> None:
    phased = Phased(tmp_path, ceiling=MICRO)
    phased.promote(CONSTRAINED)
    assert phased.profile() == MICRO
    phased.ceiling = SCALED
    assert phased.profile() == CONSTRAINED


@pytest.mark.parametrize("margin_mode", ["HEDGING", "NETTING"])
def test_what_is_open_is_closed_in_any_phase_and_state(tmp_path: Path, margin_mode: Any) -> None:
    phased = Phased(tmp_path, margin_mode)
    phased.promote(MICRO)
    position = filled(phased.order(**WORTH)).position
    placed = phased.order(**WORTH, type="LIMIT", price=1.09, filling="RETURN")
    assert isinstance(placed, OrderResult)
    phased.phases.set_trading(MAGIC, "REDUCING", "ops", "drill")
    phased.phases.demote(MAGIC, SHADOW, "ops", "drill")
    assert limit_of(phased.order(**WORTH)) == "trading"
    cancelled = phased.cancel(placed.order)
    assert isinstance(cancelled, OrderResult)
    assert cancelled.outcome == "CANCELED"
    if margin_mode == "NETTING":  # an opposite order reduces, up to what is open and no further
        assert limit_of(phased.order(volume=0.02, side="SELL")) == "trading"
        filled(phased.order(volume=0.01, side="SELL"))
    else:
        filled(phased.close(position))
    assert phased.broker.books().positions == []


def test_an_order_whose_phase_changed_while_it_was_checked_is_not_sent(micro: Phased) -> None:
    def demoted(*_: Any) -> None:
        micro.phases.demote(MAGIC, SHADOW, "ops", "now")

    micro.phases.taken = demoted  # type: ignore[method-assign]
    reply = micro.order(**WORTH)
    assert isinstance(reply, Error)
    assert (reply.code, reply.final) == ("BUSY", False)
    assert micro.broker.books().positions == []


def test_orders_of_the_run_before_count_for_the_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, MICRO, max_orders_per_minute=2, trade_size=2.0)
    phased = Phased(tmp_path)
    phased.promote(MICRO)
    filled(phased.order(**WORTH))
    phased.now += 30_000
    filled(phased.order(**WORTH))
    again = phased.reopened(killed=True)
    again.epoch = phased.epoch
    assert limit_of(again.order(**WORTH)) == "max_orders_per_minute"
    again.now += 31_000  # the first is a minute old; the lease has run out meanwhile
    again.epoch = again.control.acquire(MAGIC, "c", "run", 60_000)
    filled(again.order(**WORTH))
    assert limit_of(again.order(**WORTH)) == "max_orders_per_minute"


# --- money -------------------------------------------------------------------------------------------------


def test_a_profile_that_the_smallest_lot_cannot_satisfy_is_refused_with_the_arithmetic(
    tmp_path: Path,
) -> None:
    phased = Phased(tmp_path, leverage=100)
    said = (
        "the smallest order of EURUSD is 0.01 lots, which bind a margin of 11.00 USD; "
        f"{MICRO} allows 2.00 USD"
    )
    with pytest.raises(Refusal, match=re.escape(said)):
        phased.promote(MICRO)
    assert phased.profile() == SHADOW
    assert SHADOW in phased.state().obstacle
    refused = phased.order(volume=0.01)
    assert limit_of(refused) == "trade_size"
    assert isinstance(refused, Error)
    assert "bind a margin of 11.00 USD" in refused.remedy


def test_what_cannot_be_reckoned_is_not_allowed(micro: Phased) -> None:
    micro.showing(no_prices=["EURUSD"])
    reply = micro.order(**WORTH, price=1.1)
    assert isinstance(reply, Error)
    assert (reply.code, reply.final) == ("LIMIT", False)
    with pytest.raises(Refusal, match="cannot be checked"):
        micro.promote(CONSTRAINED)
    assert micro.profile() == MICRO


def test_dollars_of_an_account_in_another_currency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cent account: everything that the broker reckons is a hundred times as much."""
    phased = Phased(tmp_path)
    reckon, books, identity = phased.broker.calculate, phased.broker.books, phased.broker.identity
    cent = "USC"
    monkeypatch.setattr(phased.broker, "calculate", lambda question: reckon(question) * 100)
    monkeypatch.setattr(phased.broker, "identity", lambda: msgspec.structs.replace(identity(), currency=cent))
    monkeypatch.setattr(
        phased.broker, "books", lambda: msgspec.structs.replace(books(), identity=phased.broker.identity())
    )
    phased.promote(MICRO)
    filled(phased.order(volume=0.03, expected_profit=3.0))  # 165 cents of margin, 2 dollars allowed
    assert limit_of(phased.order(volume=0.04, expected_profit=100.0)) == "trade_size"
    assert limit_of(phased.order(volume=0.03, expected_profit=2.0)) == "expected_profit"


# --- records -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"magic": 8}, "the record is for magic 8"),
        ({"account": "1@Other"}, "the record is for 1@Other"),
        ({"serial": 1}, "record 1 is not newer than 1"),
        ({"profile": "live_huge"}, "there is no profile 'live_huge'"),
        ({"issued_msc": START_MSC + DAY_MS}, "the record is of the future"),
        ({"expires_msc": START_MSC}, "the record has run out"),
        ({"expires_msc": START_MSC + 60 * DAY_MS}, "longer than the 31 days"),
        ({"profile": SCALED, "override": False}, "more than one phase above"),
        ({"by": "mallory"}, "mallory may not sign phases here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_record_that_does_not_fit_changes_nothing(micro: Phased, change: dict[str, Any], said: str) -> None:
    before = micro.state()
    with pytest.raises(Refusal, match=said):
        micro.promote(**{"profile": CONSTRAINED, **change})
    after = micro.state()
    assert (after.profile, after.serial, after.acts) == (before.profile, before.serial, before.acts)


def test_a_forged_record_changes_nothing(micro: Phased) -> None:
    record = micro.record(CONSTRAINED)
    with pytest.raises(Refusal, match="the signature is not shown to be that of alice"):
        micro.give(record, signer="mallory")
    signature = sign(text_of(record), key("alice"))
    with pytest.raises(Refusal, match="the signature is not shown to be that of alice"):
        micro.give_signed(text_of(msgspec.structs.replace(record, profile=SCALED)), signature)
    assert micro.profile() == MICRO
    assert micro.notes.count("phase.refused") == 2


def test_an_older_record_never_comes_back(micro: Phased) -> None:
    old = micro.record(CONSTRAINED)
    micro.give(old)
    micro.phases.demote(MAGIC, MICRO, "ops", "too early")
    with pytest.raises(Refusal, match="is not newer than"):
        micro.give(old)
    again = micro.reopened()
    with pytest.raises(Refusal, match="is not newer than"):
        again.give(old)
    assert again.profile() == MICRO


def test_of_two_who_promote_at_once_the_second_is_refused(micro: Phased) -> None:
    first, second = micro.record(CONSTRAINED), micro.record(CONSTRAINED, reason="me too")
    micro.give(first)
    with pytest.raises(Refusal, match=f"record {second.serial} is not newer than {first.serial}"):
        micro.give(second)


def test_a_record_runs_out_while_the_gateway_runs(micro: Phased) -> None:
    micro.now += 10 * DAY_MS - 1
    assert micro.profile() == MICRO
    micro.now += 1
    assert micro.profile() == SHADOW  # at once, whoever looks or not
    micro.phases.tick()
    assert [act.act for act in micro.state().acts] == ["lapsed", "override"]
    assert "phase.lapsed" in micro.notes


@pytest.mark.parametrize("back_days", [9, 1000])
def test_a_clock_that_is_set_back_does_not_bring_a_record_back(micro: Phased, back_days: int) -> None:
    micro.now += 9 * DAY_MS
    micro.phases.tick()  # writes how late it is
    again = micro.reopened(killed=True, wall_off=-back_days * DAY_MS)
    assert again.profile() == MICRO
    again.now += DAY_MS
    assert again.profile() == SHADOW


def test_a_clock_that_jumps_while_the_gateway_runs_changes_nothing(micro: Phased) -> None:
    for jump in (400 * DAY_MS, -400 * DAY_MS):
        micro.wall_off = jump
        micro.phases.tick()
        assert micro.profile() == MICRO
        assert fact(micro, "days_in_phase") == 0


def test_a_record_that_was_changed_on_the_disk_or_whose_signer_is_gone_is_nothing(micro: Phased) -> None:
    again = micro.reopened()
    assert again.profile() == MICRO
    gone = again.reopened(listed=("bob",))
    assert gone.profile() == SHADOW
    assert gone.state().acts[0].act == "forged"


def test_a_record_that_cannot_be_looked_at_is_nothing_until_it_can(
    micro: Phased, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    blind = micro.reopened()
    assert (blind.profile(), blind.notes) == (SHADOW, ["phase.unchecked"])
    monkeypatch.undo()
    assert blind.reopened().profile() == MICRO


def test_a_damaged_row_names_the_file(micro: Phased, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "control.db") as db:
        db.execute("UPDATE phases SET stats = 'no JSON'")
    db.close()
    with pytest.raises(UnusableError, match=r"control\.db is damaged"):
        micro.reopened(killed=True)


def test_a_new_record_does_not_lift_what_was_set_by_hand(micro: Phased) -> None:
    micro.phases.set_trading(MAGIC, "REDUCING", "ops", "news")
    micro.promote(CONSTRAINED)
    assert limit_of(micro.order(**WORTH)) == "trading"


def test_a_changed_row_on_the_disk_is_found_at_the_start(micro: Phased, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "control.db") as db:
        db.execute("UPDATE phases SET profile = ?, record = replace(record, ?, ?)", (SCALED, MICRO, SCALED))
    db.close()
    assert micro.reopened().profile() == SHADOW


def test_a_higher_profile_on_the_disk_than_in_its_record_is_nothing(micro: Phased, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "control.db") as db:
        db.execute("UPDATE phases SET profile = ?", (SCALED,))
    db.close()
    assert micro.reopened().profile() == SHADOW


def test_demoting_needs_no_signature_and_goes_down_only(micro: Phased) -> None:
    with pytest.raises(Refusal, match="is above"):
        micro.phases.demote(MAGIC, CONSTRAINED, "ops", "please")
    with pytest.raises(Refusal, match="there is no profile"):
        micro.phases.demote(MAGIC, "nothing", "ops", "please")
    micro.phases.demote(MAGIC, SHADOW, "ops", "drill")
    assert micro.reopened().profile() == SHADOW


# --- what breaks a phase -----------------------------------------------------------------------------------


def test_a_days_loss_demotes_and_lets_only_reduce(tmp_path: Path) -> None:
    phased = Phased(tmp_path)
    phased.promote(CONSTRAINED)
    position = filled(phased.order(volume=0.05, expected_profit=1.0)).position
    phased.price(1.0990)  # 5.5 dollars
    phased.order_manager.look()
    state = phased.state()
    assert (state.profile, state.trading) == (MICRO, "REDUCING")
    assert state.why == "daily_loss: the day's loss is 5.65 USD, the limit is 5.00"
    assert [act.act for act in state.acts[:2]] == ["critical", "demoted"]
    phased.order_manager.look()
    assert phased.profile() == MICRO  # once, and not again with every look
    assert limit_of(phased.order(**WORTH)) == "trading"
    filled(phased.close(position))
    again = phased.reopened()
    assert (again.profile(), again.state().trading) == (MICRO, "REDUCING")


def test_failures_in_a_row_halt_the_magic_number(micro: Phased) -> None:
    micro.fault(*[SendFault(kind="retcode", retcode=10006)] * 3)
    for _ in range(3):
        assert isinstance(micro.order(**WORTH), OrderResult)
    micro.order_manager.look()
    [halt] = micro.control.halts()
    assert (halt.magic, halt.client) == (MAGIC, "gateway")
    assert "CIRCUIT_BREAKER_OPEN" in halt.reason
    reply = micro.order(**WORTH)
    assert isinstance(reply, Error)
    assert reply.code == "HALTED"
    assert micro.state().trading == "HALTED"
    micro.control.resume("MAGIC", MAGIC, "ops", "found")
    micro.order_manager.look()  # before the count is reset, which the terminal's thread does
    assert micro.control.halts() == []
    micro.order_manager.reset_breaker(MAGIC)
    micro.order_manager.look()
    filled(micro.order(**WORTH))
    assert [act.act for act in micro.state().acts].count("critical") == 1
    micro.fault(*[SendFault(kind="retcode", retcode=10006)] * 3)
    for _ in range(3):
        micro.order(**WORTH)
    micro.order_manager.look()
    assert len(micro.control.halts()) == 1


def test_orders_without_a_deal_for_half_an_hour_halt_the_magic_number(micro: Phased) -> None:
    """No more than four orders, or no more than half an hour, is not enough; a deal begins it anew."""
    waiting: dict[str, Any] = {**WORTH, "type": "LIMIT", "price": 1.09}

    def asked(times: int) -> None:
        micro.epoch = micro.control.acquire(MAGIC, "c", "run", 60_000)
        for _ in range(times):
            reply = micro.order(**waiting)
            assert isinstance(reply, OrderResult)
            assert reply.outcome == "PLACED", reply
            micro.cancel(reply.order)

    asked(4)
    micro.now += 1_900_000
    micro.order_manager.look()
    assert micro.control.halts() == []
    micro.epoch = micro.control.acquire(MAGIC, "c", "run", 60_000)
    filled(micro.order(**WORTH))
    asked(5)
    micro.now += 1_700_000
    micro.order_manager.look()
    assert micro.control.halts() == []
    micro.now += 200_000
    micro.order_manager.look()
    [halt] = micro.control.halts()
    assert (halt.magic, halt.client) == (MAGIC, "gateway")
    assert halt.reason == "no_fills: 5 orders in 1900 s and no deal (LIVE_NO_FILLS)"
    micro.control.resume("MAGIC", MAGIC, "ops", "looked")
    micro.order_manager.look()
    assert micro.control.halts() == []  # it begins anew


def test_a_working_order_that_is_filled_later_is_a_deal(micro: Phased) -> None:
    reply = micro.order(**WORTH, type="LIMIT", price=1.09)
    assert isinstance(reply, OrderResult)
    assert micro.phases._unfilled.of(MAGIC)[0] == 1
    micro.price(1.0898)
    micro.order_manager.look()
    assert micro.phases._unfilled.of(MAGIC)[0] == 0


def test_a_terminal_that_is_lost_for_too_long_halts_live_phases_only(micro: Phased) -> None:
    micro.phases.terminal(usable=False)
    micro.now += 59_000
    micro.phases.terminal(usable=False)
    assert micro.control.halts() == []
    micro.phases.terminal(usable=True)  # it was back for a moment
    micro.phases.terminal(usable=False)
    micro.now += 60_000
    micro.phases.terminal(usable=False)
    [halt] = micro.control.halts()
    assert "WS_DISCONNECTED" in halt.reason
    shadow = micro
    shadow.control.resume("MAGIC", MAGIC, "ops", "drill")
    shadow.phases.demote(MAGIC, SHADOW, "ops", "drill")
    shadow.phases.terminal(usable=False)
    assert shadow.control.halts() == []


# --- evidence ----------------------------------------------------------------------------------------------


def test_days_are_those_that_the_gateway_has_run_and_a_kill_is_a_crash(micro: Phased) -> None:
    micro.now += 3 * DAY_MS
    again = micro.reopened()  # stopped: no crash
    again.now += 2 * DAY_MS
    assert (fact(again, "days_in_phase"), fact(again, "days_without_crash")) == (5, 5)
    again.phases.tick()
    killed = again.reopened(killed=True)
    killed.now += DAY_MS
    assert (fact(killed, "days_in_phase"), fact(killed, "days_without_crash")) == (6, 1)
    assert fact(killed, "uptime_percent") == 100
    killed.now += DAY_MS
    later = killed.reopened(wall_off=7 * DAY_MS)  # for a week there was no gateway
    assert (fact(later, "days_in_phase"), fact(later, "uptime_percent")) == (7, 50)


def test_figures_survive_a_stop_and_begin_anew_with_a_phase(micro: Phased) -> None:
    filled(micro.order(**WORTH))
    assert limit_of(micro.order(volume=1.0, expected_profit=1e6)) == "trade_size"
    micro.price(1.0990)
    micro.order_manager.look()
    again = micro.reopened()
    assert (fact(again, "fills"), fact(again, "reject_percent"), fact(again, "worst_day")) == (1, 50, -1.13)
    assert fact(again, "latency_p95_ms") == 10
    again.promote(MICRO)  # renewed
    assert fact(again, "fills") == 1
    again.promote(CONSTRAINED)
    assert (fact(again, "fills"), fact(again, "reject_percent"), fact(again, "latency_p95_ms")) == (
        0,
        None,
        None,
    )
    assert again.state().account == ACCOUNT
