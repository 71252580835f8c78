"""Books that are behind the replies: positions, orders, history and deals each late by themselves."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.broker.sim.faults import SendFault
from mt5crs.gateway import journal
from mt5crs.gateway.reader import Reader
from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol.events import trade_topic
from mt5crs.protocol.identifiers import comment_id
from mt5crs.protocol.replies import Error, OrderResult, Snapshot
from mt5crs.protocol.requests import OrderResolve, SyncAll
from mt5crs.reconciler.compare import compare, count_strikes, struck_out
from mt5crs.reconciler.model import evidence_of
from tests.unit.gateway.counter import LAG_S, MAGIC, Counter
from tests.unit.gateway.test_limits import filled, limit_of

LAGS = ["positions_lag_ms", "orders_lag_ms", "history_lag_ms", "deals_lag_ms"]


def all_late(milliseconds: int) -> dict[str, Any]:
    return dict.fromkeys(LAGS, milliseconds)


def really_open(counter: Counter) -> float:
    """Lots that the trade server has open, whatever the terminal shows."""
    return sum(position.volume for position in counter.broker._store.positions())


def snapshot(counter: Counter) -> Snapshot:
    order_manager = counter.order_manager
    reader = Reader(
        counter.broker,
        order_manager,
        order_manager._watch,
        order_manager._ledger,
        counter.control,
        order_manager._stream,
    )
    reply = reader.answer(
        SyncAll(v=1, id="s", client="c", magic=MAGIC, whole_account=False, history_since_msc=0)
    )
    assert isinstance(reply, Snapshot)
    return reply


def pass_time(counter: Counter, milliseconds: int) -> None:
    counter.now += milliseconds
    counter.order_manager.look()
    counter.order_manager.resolve_all()


@pytest.mark.parametrize("knob", [*LAGS, "all"])
@pytest.mark.parametrize("margin_mode", ["HEDGING", "NETTING"])
def test_orders_at_once_do_not_pass_a_limit(tmp_path: Path, knob: str, margin_mode: Any) -> None:
    counter = Counter(tmp_path, margin_mode, max_position_volume=0.1)
    counter.showing(**(all_late(60) if knob == "all" else {knob: 60}))
    filled(counter.order())
    for _ in range(4):
        assert limit_of(counter.order()) == "max_position_volume"
    assert really_open(counter) == 0.1
    pass_time(counter, 100)
    assert limit_of(counter.order()) == "max_position_volume"
    filled(counter.close(counter.broker.books().positions[0].identifier))
    pass_time(counter, 100)
    filled(counter.order())


@pytest.mark.parametrize("knob", [*LAGS, "all"])
def test_a_snapshot_that_has_come_as_far_as_the_answer_holds_its_effect(tmp_path: Path, knob: str) -> None:
    counter = Counter(tmp_path)
    counter.showing(**(all_late(700) if knob == "all" else {knob: 700}))
    answer = filled(counter.order())
    for _ in range(20):
        shown = snapshot(counter)
        if not shown.unresolved and shown.seqs.get(trade_topic(MAGIC), 0) >= answer.seq:
            break
        pass_time(counter, 50)
    assert [p.volume for p in shown.positions] == [0.1]
    assert [d.volume for d in shown.deals if d.magic == MAGIC] == [0.1]
    assert counter.order_manager.unsettled(MAGIC) == []


@pytest.mark.parametrize("margin_mode", ["HEDGING", "NETTING"])
def test_a_close_is_not_sent_twice(tmp_path: Path, margin_mode: Any) -> None:
    counter = Counter(tmp_path, margin_mode)
    position = filled(counter.order(volume=0.3)).position
    counter.showing(**all_late(60))
    filled(counter.close(position, volume=0.2))
    too_much = counter.close(position, volume=0.2)
    assert isinstance(too_much, Error)
    assert (too_much.code, too_much.field) == ("BAD_FIELD", "volume")
    filled(counter.close(position))
    again = counter.close(position)
    assert isinstance(again, Error)
    assert again.code == "UNKNOWN_POSITION"
    assert counter.broker._store.positions() == []
    pass_time(counter, 100)
    assert counter.broker.books().positions == []
    assert counter.order_manager.unsettled(MAGIC) == []


@pytest.mark.parametrize("fate", ["filled", "unknown"])
def test_on_a_netting_account_magics_do_not_merge_while_the_books_are_behind(
    tmp_path: Path, fate: str
) -> None:
    counter = Counter(tmp_path, "NETTING")
    counter.limits[99] = counter.limits[MAGIC]
    other = {"magic": 99, "lease_epoch": counter.control.acquire(99, "other", "run", 60_000)}
    counter.showing(**all_late(1000))
    if fate == "unknown":
        counter.broker.faults.send.append(SendFault(kind="late_fill", delay_ms=50))
    reply = counter.order(**other)
    assert isinstance(reply, OrderResult)
    assert reply.outcome == ("FILLED" if fate == "filled" else "UNRESOLVED")
    assert limit_of(counter.order()) == "symbol"


def test_a_working_order_counts_until_its_fill_is_shown(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.5)
    counter.broker.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.1, magic=99))
    placed = counter.order(volume=0.5, type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    counter.showing(positions_lag_ms=1000, deals_lag_ms=1000, history_lag_ms=1000)
    counter.price(0.99)  # it is filled: gone from the orders, not yet among the positions
    for _ in range(8):
        assert limit_of(counter.order()) == "max_position_volume"
        pass_time(counter, 200)
    assert really_open(counter) == 0.6  # 0.1 of it somebody else's
    assert counter.order_manager.unsettled(MAGIC) == []


def test_a_cancelled_order_counts_no_longer_once_the_history_says_so(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.5)
    placed = counter.order(volume=0.5, type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    counter.showing(history_lag_ms=500)
    counter.cancel(placed.order)
    pass_time(counter, 100)
    refused = counter.order()
    assert isinstance(refused, Error)
    pass_time(counter, 500)
    filled(counter.order(volume=0.5))


def test_a_loss_counts_when_its_deal_is_seconds_behind_the_position(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_daily_loss=1000.0)
    position = filled(counter.order(volume=1.0)).position
    counter.price(1.08)
    pass_time(counter, 10)
    counter.showing(deals_lag_ms=3000)
    counter.broker.command(Command(do="close", position=position))  # stop loss, or by hand
    for _ in range(20):
        assert limit_of(counter.order()) == "max_daily_loss"
        pass_time(counter, 200)
    shown = counter.order_manager.guards()[0].daily_profit
    assert shown is not None
    assert -2100 < shown < -1900  # once, not with the open result beside it


def test_what_the_books_never_show_becomes_unresolved_and_a_person_may_accept_it(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=1.0)
    counter.showing(positions_lag_ms=600_000)
    first = filled(counter.order(client_order_id="lost"))
    filled(counter.order())  # still within the limits, and within the time
    counter.now += int(LAG_S * 1000) + 1
    counter.order_manager.look()
    assert "books.behind" in counter.notes
    assert counter.order_manager.unresolved(MAGIC)[0] == "lost"
    assert counter.order_manager.unresolved_by_magic() == {MAGIC: 2}
    blocked = counter.order()
    assert isinstance(blocked, Error)
    assert blocked.code == "UNRESOLVED"
    for name in ("lost", "o2"):
        reply = counter.order_manager.declare(
            OrderResolve(v=1, id="r", client="ops", magic=MAGIC, client_order_id=name, reason="looked")
        )
        assert isinstance(reply, OrderResult)
        assert reply.outcome == "FILLED"  # what was told stays told
    assert reply.client_order_id != first.client_order_id
    assert counter.order_manager.unresolved(MAGIC) == []


def test_what_was_told_before_the_books_showed_it_survives_a_restart(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.1)
    counter.broker.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.1, magic=99))
    theirs = counter.broker.books().positions
    counter.showing(**all_late(60))
    filled(counter.order(client_order_id="early"))
    again = counter.restarted(look=False)
    again.broker._past._versions[0] = (again.broker._past._versions[0][0], theirs, [])
    again.showing(**all_late(60))
    assert again.order_manager.unsettled(MAGIC) == ["early"]
    assert limit_of(again.order()) == "max_position_volume"


def test_a_terminal_that_has_not_loaded_is_not_an_empty_account(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_position_volume=0.1)
    filled(counter.order())
    counter.showing(loading=True)
    with pytest.raises(Refusal, match="loading"):
        snapshot(counter)
    refused = counter.order()
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("NOT_READY", "loading")
    counter.showing()
    assert limit_of(counter.order()) == "max_position_volume"


def test_a_look_that_failed_makes_no_empty_account_of_a_terminal_that_loads(tmp_path: Path) -> None:
    """The first look of a gateway shows a position, then fails with the deals; the terminal is restarted."""
    counter = Counter(tmp_path, max_position_volume=0.1)
    filled(counter.order())
    again = counter.restarted(look=False)
    again.fault(fail_queries=1)
    failed = again.order()
    assert isinstance(failed, Error)
    assert failed.code == "BROKER"
    again.showing(loading=True)
    for waited_s in (0, 2 * LAG_S):  # so long what was seen last counts, whatever is listed
        again.now += int(waited_s * 1000)
        refused = again.order()
        assert isinstance(refused, Error)
        assert (refused.code, refused.field) == ("NOT_READY", "loading")
    again.showing()
    assert limit_of(again.order()) == "max_position_volume"


def test_an_account_switched_during_the_send_makes_the_order_unknown(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    counter.showing(login_at_send=4711)
    reply = counter.order()
    assert isinstance(reply, OrderResult)
    assert reply.outcome == "UNRESOLVED"


def test_a_deal_that_is_seconds_late_does_not_halt_the_reconciler(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    local = compare(None, evidence_of(snapshot(counter), MAGIC)).state
    counter.showing(deals_lag_ms=8000)
    counter.now += 9000
    counter.broker.command(Command(do="close", position=position))
    strikes: dict[str, int] = {}
    for _ in range(7):
        counter.now += 1000
        found = compare(local, evidence_of(snapshot(counter), MAGIC))
        local, strikes = found.state, count_strikes(strikes, found.discrepancies)
        assert found.discrepancies  # it is not settled, and nothing may be traded on it
    assert [key for key in struck_out(strikes) if not key.startswith("unresolved:")] == []
    counter.now += 2000
    found = compare(local, evidence_of(snapshot(counter), MAGIC))
    assert (found.state.positions, found.discrepancies) == ((), ())


def test_a_cancel_too_near_to_the_market_is_refused_for_sure(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    placed = counter.order(type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    counter.fault(SendFault(kind="retcode", retcode=10029))
    refused = counter.cancel(placed.order)
    assert isinstance(refused, OrderResult)
    assert refused.outcome == "REJECTED"
    filled(counter.order())


@pytest.mark.parametrize(("margin_mode", "may"), [("HEDGING", True), ("NETTING", False)])
def test_an_operator_closes_what_an_unresolved_order_cannot_change(
    tmp_path: Path, margin_mode: Any, may: bool
) -> None:
    counter = Counter(tmp_path, margin_mode)
    position = filled(counter.order()).position
    counter.fault(SendFault(kind="lose_request"))
    assert isinstance(counter.order(), OrderResult)
    counter.control.halt("FLEET", 0, "ops", "drill")
    reply = counter.close(position, operator=True)
    assert isinstance(reply, OrderResult if may else Error)
    assert len(counter.broker._store.positions()) == (0 if may else 1)


def test_deals_of_another_gateway_on_the_account_are_told(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    filled(counter.order())
    waiting = counter.order(type="LIMIT", price=1.0)
    assert isinstance(waiting, OrderResult)
    counter = counter.restarted()
    counter.price(0.99)  # an order of before the restart is filled
    pass_time(counter, 100)
    assert "account.shared" not in counter.notes
    trade = Command(do="trade", symbol="EURUSD", side="BUY", volume=0.1, magic=MAGIC, comment="by hand")
    counter.broker.command(trade)
    pass_time(counter, 100)
    assert "account.shared" not in counter.notes
    elsewhere = comment_id(MAGIC, "another gateway's")
    counter.broker.command(msgspec.structs.replace(trade, comment=elsewhere))
    pass_time(counter, 100)
    assert counter.notes.count("account.shared") == 1


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_not_sent_is_kept_for_a_while_of_each_magic_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    monkeypatch.setattr(journal, "UNSENT_KEPT", 20)
    monkeypatch.setattr(journal, "_FORGET_EVERY", 10)
    counter = Counter(tmp_path, dry_run=dry_run)
    counter.limits[MAGIC + 1] = counter.limits[MAGIC]
    other = counter.control.acquire(MAGIC + 1, "c", "run", 60_000)
    for _ in range(100):  # in turns: none of them is always the one that is looked at
        counter.now += 1
        counter.order(volume=0.1 if dry_run else 9.0)
        counter.order(volume=0.1 if dry_run else 9.0, magic=MAGIC + 1, lease_epoch=other)
    rows = counter.journal._db.execute("SELECT magic, COUNT(*) FROM submissions GROUP BY magic").fetchall()
    assert [magic for magic, _ in rows] == [MAGIC, MAGIC + 1]
    assert all(count <= 32 for _, count in rows)


def test_refusals_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "UNSENT_KEPT", 20)
    monkeypatch.setattr(journal, "_FORGET_EVERY", 10)
    moments = iter(range(1, 10**6))
    monkeypatch.setattr("time.time_ns", lambda: next(moments) * 1_000_000)
    counter = Counter(tmp_path, max_order_volume=0.05)
    for _ in range(100):
        limit_of(counter.order())
    (kept,) = counter.journal._db.execute("SELECT COUNT(*) FROM submissions").fetchone()
    assert kept <= 31
    assert limit_of(counter.order(client_order_id="o100")) == "max_order_volume"
    assert counter.journal.find(MAGIC, "o1") is None
