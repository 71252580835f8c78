"""Cancel and withdraw at real gateways, with phases and without: what is done, what is left, who is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mt5crs.client.errors import GatewaySilentError
from mt5crs.operate import emergencies
from mt5crs.operate.flatten import Step
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import Order
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.phased import MICRO, SHADOW, key, signers
from tests.unit.gateway.running import MAGIC, OTHER_MAGIC, Running, eventually, running
from tests.unit.operate.operated import Operated, operated, with_a_silent_one

pytestmark = pytest.mark.timeout(60)
WAITS: dict[str, Any] = {"type": "LIMIT", "price": 0.5, "filling": "RETURN"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("emergency")) as started:
        yield started


@pytest.fixture
def ops(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Operated:
    return operated(gateway, monkeypatch)


@pytest.fixture(scope="module")
def phased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {"PHASES": "true", "PHASE_SIGNERS": json.dumps(signers("alice")), "SIM_LEVERAGE": "2000"}
    with running(tmp_path_factory.mktemp("phased"), **settings) as started:
        yield started


def ordered(ops: Operated) -> int:
    """An order of each of two magic numbers, and a position of the first; the first order's ticket."""
    trader = ops.trader()
    assert isinstance(trader.order(), OrderResult)
    other = ops.gateway.client("other", OTHER_MAGIC)
    other.lease()
    assert isinstance(other.order(**WAITS), OrderResult)
    placed = trader.order(**WAITS)
    assert isinstance(placed, OrderResult)
    return placed.order


def working(ops: Operated) -> list[int]:
    return sorted(order.magic for order in ops.gateway.books("orders"))


def test_orders_of_one_magic_number_are_cancelled_under_its_halt_and_positions_stay(ops: Operated) -> None:
    ticket = ordered(ops)
    done = ops.run("cancel", "--magic", str(MAGIC), "--reason", "gap at the open", "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith(
        "this halts magic number 202401, then cancels all working orders of it; pos"
    )
    assert json.loads(done.stdout)["gtw-01"] == {
        "steps": [{"what": "order", "ticket": ticket, "result": "CANCELED", "message": "order is CANCELED"}],
        "in_flight": 0,
        "left": [],
        "unseen": "",
    }
    assert working(ops) == [OTHER_MAGIC]
    assert ops.gateway.books("positions")
    assert ops.halts() == [(MAGIC, "gap at the open")]
    (act,) = ops.recorded
    assert (act["what"], act["steps"]) == (
        "orders.cancelled",
        [{"what": "order", "ticket": ticket, "result": "CANCELED"}],
    )
    assert "no order was working" in ops.run("cancel", "--magic", str(MAGIC), "--reason", "again").output


def test_all_are_cancelled_and_a_gateway_that_is_away_is_named(ops: Operated) -> None:
    ordered(ops)
    ops.fleet = with_a_silent_one(ops.fleet)
    done = ops.run("cancel", "--reason", "gap at the open")
    assert done.exit_code == 1, done.output
    assert "error: gtw-02: " in done.output
    assert "CANCELED" in done.output
    assert working(ops) == [], "of every magic number"
    assert ops.halts() == [(0, "gap at the open")]


def test_without_its_books_a_magic_number_is_halted_all_the_same_and_that_is_no_success(
    ops: Operated,
) -> None:
    ops.gateway.fault(disconnected=True)
    try:
        eventually(lambda: ops.tell(requests.Status).state != "ready")
        done = ops.run("cancel", "--magic", str(MAGIC), "--reason", "line is down")
        halted = ops.halts()
    finally:
        ops.gateway.fault()
        eventually(lambda: ops.tell(requests.Status).state == "ready")
    assert done.exit_code == 1, done.output
    assert "halted, but its orders are not known: gateway refused: " in done.output
    assert "no order was working" not in done.output
    assert halted == [(MAGIC, "line is down")]


def test_what_is_not_ours_or_not_known_is_left_and_said() -> None:
    by_hand = Order(
        ticket=5,
        symbol="EURUSD",
        type="BUY_LIMIT",
        state="PLACED",
        magic=0,
        comment="",
        volume_initial=0.1,
        volume_current=0.1,
        price_open=1.0,
        sl=0.0,
        tp=0.0,
        **dict.fromkeys(("position_id", "time_setup_msc", "time_done_msc", "expiration_msc", "reason"), 0),
    )

    class Client:
        def __init__(self) -> None:
            self.books = [[by_hand], [by_hand]]

        def call(self, *_: Any, **__: Any) -> replies.HaltState:
            return replies.HaltState(v=1, id="x", halts=[], in_flight=1)

        def snapshot(self, *_: Any, **__: Any) -> Any:
            if not self.books:
                raise GatewaySilentError("no answer")
            return type("Books", (), {"orders": self.books.pop(0)})

    done = emergencies._cancelled(Client(), None, "drill")  # type: ignore[arg-type]
    assert [(step.ticket, step.result) for step in done.steps] == [(5, "LEFT")]
    assert (done.in_flight, done.unseen) == (1, "no answer"), "what was on its way may come later"
    assert isinstance(done.steps[0], Step)


def test_withdrawn_without_phases_it_only_reduces_until_a_person_gives_it_back(ops: Operated) -> None:
    trader = ops.trader()
    done = ops.run("withdraw", "--magic", str(MAGIC), "--reason", "wrong model")
    assert done.exit_code == 0, done.output
    assert "this halts magic number 202401, lets it only reduce" in done.output
    assert "under the lowest phase: not done: this gateway uses no phases" in done.output
    assert "no signature stands before its return" in done.output
    assert [act["what"] for act in ops.recorded] == ["trading.withdrawn"]
    assert ops.run("resume", "--magic", str(MAGIC), "--reason", "by mistake").exit_code == 0
    refused = trader.order()
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("LIMIT", "trading"), "the halt alone does not hold it"


def test_withdrawn_with_phases_its_record_counts_no_more(
    phased: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = operated(phased, monkeypatch)
    promote = ("phase", "promote", "--magic", str(MAGIC), "--by", "alice", "--key", str(key("alice")))
    given = ops.run(*promote, "--reason", "drill", "--override", "--days", "2")
    assert given.exit_code == 0, given.output
    assert ops.tell(requests.PhaseQuery).profile == MICRO
    done = ops.run("withdraw", "--magic", str(MAGIC), "--reason", "wrong model")
    assert done.exit_code == 0, done.output
    assert "under the lowest phase: done" in done.output
    assert "a newly signed record" in done.output
    state = ops.tell(requests.PhaseQuery)
    assert (state.profile, state.trading, state.why) == (SHADOW, "HALTED", "withdrawn: wrong model")
    refused = ops.start("--yes")
    assert "trading was withdrawn: wrong model (ops)" in refused.output
    ops.trader()
    assert ops.run("phase", "activate", "--magic", str(MAGIC), "--reason", "mended").exit_code == 0
    shown = ops.start("--yes")
    assert shown.exit_code == 0, shown.output
    assert "limits of the phase" in shown.output
    assert f"{MAGIC} trades (orders are only checked): " in shown.output


def test_withdrawing_goes_on_past_what_fails_and_says_so(ops: Operated) -> None:
    class Client:
        def call(self, kind: type[requests.Request], *_: Any, **__: Any) -> replies.HaltState:
            if kind is not requests.Halt:
                raise GatewaySilentError("no answer")
            return replies.HaltState(v=1, id="x", halts=[], in_flight=0)

    done = emergencies._withdrawn(Client(), MAGIC, "withdrawn: x")  # type: ignore[arg-type]
    failed = "FAILED: no answer"
    assert done.acts == {"halted": "done", "only reducing": failed, "under the lowest phase": failed}
    assert "not known" in emergencies._way_back(done, MAGIC)
    ops.fleet = with_a_silent_one(ops.fleet)
    long = ops.run("withdraw", "--magic", str(MAGIC), "--reason", "x" * 250)
    assert (long.exit_code, "in at most 245 characters" in long.output) == (2, True)
