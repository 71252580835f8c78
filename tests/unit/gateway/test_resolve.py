"""A person declares an order not executed: when that is taken, and what if it was wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.broker.sim.faults import SendFault
from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol.replies import Error, OrderResult
from mt5crs.protocol.requests import OrderQuery, OrderResolve
from tests.unit.gateway.counter import MAGIC, RESOLVE_AFTER_S, Counter
from tests.unit.gateway.test_limits import filled


def lost(counter: Counter, fault: SendFault | None = None, **terms: Any) -> str:
    """An order whose fate is not known."""
    counter.broker.faults.send.append(fault or SendFault(kind="lose_request"))
    reply = counter.order(**terms)
    assert isinstance(reply, OrderResult)
    assert reply.outcome == "UNRESOLVED"
    return reply.client_order_id


def declare(counter: Counter, client_order_id: str, reason: str = "looked, nothing there") -> OrderResult:
    reply = counter.order_manager.declare(
        OrderResolve(v=1, id="r", client="ops", magic=MAGIC, client_order_id=client_order_id, reason=reason)
    )
    assert isinstance(reply, OrderResult)
    return reply


def told(counter: Counter, client_order_id: str) -> OrderResult:
    reply = counter.order_manager.query(
        OrderQuery(v=1, id="q", client="c", magic=MAGIC, client_order_id=client_order_id)
    )
    assert isinstance(reply, OrderResult)
    return reply


def wait(counter: Counter, seconds: float) -> None:
    counter.now += int(seconds * 1000)
    counter.order_manager.look()
    counter.order_manager.resolve_all()


def test_an_order_is_not_given_up_before_it_can_have_failed(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    order = lost(counter)
    with pytest.raises(Refusal, match="a moment ago") as refused:
        declare(counter, order)
    assert refused.value.retry_ms is not None
    wait(counter, RESOLVE_AFTER_S - 1)
    with pytest.raises(Refusal, match="a moment ago"):
        declare(counter, order)
    wait(counter, 1)
    assert declare(counter, order).outcome == "REJECTED"
    filled(counter.order())


@pytest.mark.parametrize("restart", [False, True])
def test_a_fill_after_the_declaration_is_told(tmp_path: Path, restart: bool) -> None:
    counter = Counter(tmp_path)
    order = lost(counter, SendFault(kind="late_fill", delay_ms=int(RESOLVE_AFTER_S * 1000) + 30_000))
    wait(counter, RESOLVE_AFTER_S)
    assert declare(counter, order).outcome == "REJECTED"
    wait(counter, 10)
    assert told(counter, order).outcome == "REJECTED"
    if restart:
        late = counter.broker._late
        counter = counter.restarted()
        counter.broker._late = late
    counter.now += 60_000  # a restart before it is seen changes nothing
    wait(counter, 1)
    wait(counter, 10)
    assert "order.late_fill" in counter.notes
    answer = told(counter, order)
    assert (answer.outcome, answer.evidence, answer.volume) == ("FILLED", "books", 0.1)
    assert "declared not executed" in answer.message
    counter.notes.clear()
    wait(counter, 10)
    assert counter.notes == []  # once


@pytest.mark.parametrize("ahead_ms", [0, 10 * 60_000, -10 * 60_000, 3 * 3600_000])
def test_a_clock_that_is_wrong_does_not_hide_a_deal(tmp_path: Path, ahead_ms: int) -> None:
    counter = Counter(tmp_path)
    counter.showing(clock_ahead_ms=ahead_ms, deals_lag_ms=1000, history_lag_ms=1000, positions_lag_ms=1000)
    order = lost(counter, SendFault(kind="lose_reply"))
    counter.now += int(RESOLVE_AFTER_S * 1000)
    entry = counter.order_manager._unresolved.entries()[0]
    with pytest.raises(Refusal, match="books show it"):
        counter.order_manager._resolution._require_no_trace(entry, "looked, nothing there")
    wait(counter, 10)
    assert told(counter, order).outcome == "FILLED"


def rewritten(counter: Counter, **changes: Any) -> int:
    """The order was executed, but the broker has changed its comment. Returns the deal's ticket."""
    terms = {"symbol": "EURUSD", "side": "BUY", "volume": 0.1, "magic": MAGIC, "comment": "", **changes}
    counter.broker.command(msgspec.convert({"do": "trade", **terms}, type=Command))
    return counter.broker.deals(0)[-1].ticket


def test_a_deal_that_belongs_to_nothing_stands_against_the_declaration(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    order = lost(counter)
    ticket = rewritten(counter)
    wait(counter, RESOLVE_AFTER_S)
    with pytest.raises(Refusal, match="belongs to no other order"):
        declare(counter, order)
    deal = next(d for d in counter.broker.deals(0) if d.ticket == ticket)
    assert declare(counter, order, f"{deal.order} was traded by hand").outcome == "REJECTED"


@pytest.mark.parametrize("changes", [{"magic": 99}, {"side": "SELL"}, {"symbol": "GBPUSD"}])
def test_other_deals_do_not_stand_against_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    counter = Counter(tmp_path)
    filled(counter.order())  # its own, known to the journal
    order = lost(counter)
    rewritten(counter, **changes)
    wait(counter, RESOLVE_AFTER_S)
    assert declare(counter, order).outcome == "REJECTED"


def test_an_order_sent_to_another_account_is_not_found_in_ours(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    counter.showing(login_at_send=4711)
    reply = counter.order()
    assert isinstance(reply, OrderResult)
    assert reply.outcome == "UNRESOLVED"
    wait_for = counter.order_manager.unresolved(MAGIC)
    counter.fault()
    wait(counter, RESOLVE_AFTER_S)
    assert counter.order_manager.unresolved(MAGIC) == wait_for
    assert isinstance(counter.order(), Error)


def test_only_what_just_happened_is_read_for_an_order_that_is_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(tmp_path)
    asked: list[int] = []
    closed_orders = counter.broker.closed_orders

    def recorded(since_msc: int) -> Any:
        asked.append(counter.now - since_msc)
        return closed_orders(since_msc)

    filled(counter.order())
    counter.now += 1000
    monkeypatch.setattr(counter.broker, "closed_orders", recorded)
    filled(counter.order())
    assert max(asked) <= 5000  # milliseconds; the first order's deal is the newest one before it
    asked.clear()
    lost(counter)
    assert max(asked) >= 5 * 60_000


@pytest.mark.parametrize("comments", ["cut", "rewritten", "dropped"])
def test_what_a_broker_makes_of_comments_calls_no_executed_order_failed(
    tmp_path: Path, comments: Literal["cut", "rewritten", "dropped"]
) -> None:
    """26 characters are enough. Without them an order without a reply is unresolved, and not given up."""
    counter = Counter(tmp_path)
    counter.showing(comments=comments)
    answered = counter.order()
    assert isinstance(answered, OrderResult)
    assert answered.outcome == "FILLED"
    if comments == "cut":
        counter.broker.faults.send.append(SendFault(kind="lose_reply"))
        found = counter.order()
        assert isinstance(found, OrderResult)
        assert (found.outcome, found.evidence) == ("FILLED", "books")
        return
    unknown = lost(counter, SendFault(kind="lose_reply"))
    wait(counter, RESOLVE_AFTER_S * 2)
    assert told(counter, unknown).outcome == "UNRESOLVED"
    with pytest.raises(Refusal, match="may have changed its comment"):
        declare(counter, unknown)
