"""`mt5crs stop` against a real gateway: it is stopped first, then the run is told; unknown is never zero."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.commands import stop
from deploy.coordination import audit_log
from deploy.daily import of_run, on_host
from deploy.daily.asking import Account
from deploy.daily.reckoning import DAY_MS
from deploy.fleet.inventory import Fleet
from mt5crs.protocol import requests
from mt5crs.protocol.records import PhaseAct
from mt5crs.protocol.replies import Error, OrderResult, PhaseState
from mt5crs_release.records.audit_chain import line_of
from tests.unit.daily.test_daily import FIRST, closed, deal, deposit
from tests.unit.gateway.running import MAGIC, Running, eventually, running
from tests.unit.operate.operated import Operated, away, operated
from tests.unit.stand_in import hub_that_answers

pytestmark = pytest.mark.timeout(60)
ALERT = {"alertname": "Mt5crsHalted", "host": "gtw-01", "severity": "critical", "minutes": 2}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("stop")) as started:
        yield started


@pytest.fixture
def ops(gateway: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operated:
    """A fleet with a Hub; hosts answer from the gateway's own files."""
    made = operated(gateway, monkeypatch)
    hosts = {**made.fleet.hosts, "hub-01": {"ansible_host": "10.9.9.1"}}
    made.fleet = Fleet(made.fleet.inventory, "x", hosts, {**made.fleet.groups, "hub": ("hub-01",)})

    def told_by(_: Fleet, asked: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        found = {
            host: on_host.answer({**one, "gateway": True, "prometheus": ""}) for host, one in asked.items()
        }
        return found | {"hub-01": {"alerts": {"value": [ALERT]}}}

    def log(_: object) -> audit_log.Log:
        lines = [line_of({"n": 1, "id": "x", **record}) for record in made.recorded]
        return audit_log.Log(b"\n".join(lines), b"", None, (), {})

    hub_that_answers(tmp_path, monkeypatch)(0, {"changed": True})
    monkeypatch.setattr(on_host, "STATE", gateway.directory / "state")
    monkeypatch.setattr(of_run, "told_by", told_by)
    monkeypatch.setattr(audit_log, "fetch", log)
    return made


def stopped(ops: Operated, *more: str) -> Any:
    return ops.run("stop", "--magic", str(MAGIC), *more)


def test_it_is_halted_and_what_it_did_since_its_start_is_told(ops: Operated) -> None:
    trader = ops.trader()
    ops.halt("before")
    assert ops.start("--yes").exit_code == 0
    opened = trader.order(volume=0.5)
    assert isinstance(opened, OrderResult)
    assert isinstance(trader.order(volume=9.0), Error)
    assert isinstance(trader.order(type="LIMIT", price=0.5, filling="RETURN"), OrderResult)
    ended = stopped(ops, "--reason", "end of the week", "--json")
    assert ended.exit_code == 0, ended.output
    report = json.loads(ended.stdout)
    assert "this halts magic number" in ended.stderr
    at = report["stopped"]["gtw-01"]["value"]
    assert (at["state"], at["by"], at["why"], at["already"]) == ("HALTED", "ops", "end of the week", False)
    assert 0 <= report["run"]["value"]["seconds"] < 60
    money = report["money"]["gtw-01"]["value"]
    assert (money["deals"], money["trades"], money["wins"]) == (1, 0, 0)
    results = {one["result"]: one["count"] for one in report["orders"]["gtw-01"]["value"]}
    assert results == {"FILLED": 1, "REFUSED": 1, "PLACED": 1}
    assert [one["act"] for one in report["acts"]["gtw-01"]["value"]] == ["resume", "halt"]
    held = report["open"]["gtw-01"]["value"]
    assert [(one["symbol"], one["volume"]) for one in held["positions"]] == [("EURUSD", 0.5)]
    assert len(held["orders"]) == 1
    assert report["alerts"] == {"value": [ALERT]}
    assert ops.halts() == [(MAGIC, "end of the week")]
    told = [act for act in ops.recorded if act["what"] == "trading.stopped"]
    assert [(act["to"], act["reason"], act["gateways"]) for act in told] == [
        ("HALTED", "end of the week", {"gtw-01": "done"})
    ]

    again = stopped(ops, "--reason", "once more")
    assert again.exit_code == 0, again.output
    assert "gtw-01: had been stopped already, HALTED" in again.output
    assert "by ops: end of the week" in again.output
    assert "1 positions [EURUSD BUY 0.5" in again.output
    assert "alerts: Mt5crsHalted (critical) of gtw-01" in again.output


def test_with_reduce_it_may_still_close(ops: Operated) -> None:
    trader = ops.trader()
    ops.recorded.append({"what": "trading.started", "magic": MAGIC, "began_msc": 1_700_000_000_000})
    ended = stopped(ops, "--reason", "news at 14:30", "--reduce")
    assert ended.exit_code == 0, ended.output
    assert "gtw-01: stopped, REDUCING" in ended.output
    assert ops.halts() == []
    refused = trader.order()
    assert isinstance(refused, Error)
    assert refused.field == "trading"


def test_without_a_known_start_nothing_is_told_of_the_run_and_that_is_no_success(ops: Operated) -> None:
    ended = stopped(ops, "--reason", "drill")
    assert ended.exit_code == 1, ended.output
    for title in ("run time", "gtw-01: trades", "gtw-01: orders", "gtw-01: halts and resumes", "alerts"):
        assert f"{title}: unknown: no start of {MAGIC} before " in ended.output
    assert "gtw-01: open: " in ended.output, "the books are known all the same"
    assert ops.halts() == [(MAGIC, "drill")]


def test_a_terminal_that_is_down_does_not_keep_it_from_being_halted(ops: Operated) -> None:
    ops.recorded.append({"what": "trading.started", "magic": MAGIC, "began_msc": 1_700_000_000_000})
    ops.gateway.fault(disconnected=True, fail_queries=99)
    try:
        eventually(lambda: ops.tell(requests.Status).state != "ready")
        ended = stopped(ops, "--reason", "drill")
        halted = ops.halts()
    finally:
        ops.gateway.fault()
        eventually(lambda: ops.tell(requests.Status).state == "ready")
    assert ended.exit_code == 1, ended.output
    assert halted == [(MAGIC, "drill")]
    assert "gtw-01: stopped, HALTED" in ended.output
    assert "gtw-01: open: unknown: " in ended.output
    assert "gtw-01: trades: unknown: " in ended.output


def test_a_gateway_that_is_away_may_still_trade_and_that_is_said(ops: Operated) -> None:
    ops.fleet = away(ops.fleet)
    ended = stopped(ops, "--reason", "drill")
    assert ended.exit_code == 1, ended.output
    assert "error: gtw-01: " in ended.output
    assert "; it may still trade there" in ended.output
    assert "gtw-01: whether it stopped is NOT KNOWN: " in ended.output
    assert "stopped, HALTED" not in ended.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--magic", str(MAGIC)), "Missing option '--reason'"),
        (("--magic", "7", "--reason", "drill"), f"there are {MAGIC}"),
        (("--magic", str(MAGIC), "--reason", " x "), "3 to 256 characters"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    ops: Operated, words: tuple[str, ...], why: str
) -> None:
    refused = ops.run("stop", *words)
    assert (refused.exit_code, why in refused.output) == (2, True), refused.output
    assert ops.halts() == []


def test_it_only_reduces_since_the_first_of_the_acts_that_say_so() -> None:
    def act(name: str, at: int, reason: str = "why", magic: int = 7) -> PhaseAct:
        return PhaseAct(at_msc=at, magic=magic, act=name, profile="", serial=1, by="ops", reason=reason)

    newest_first = [
        act("reducing", 9),
        act("crash", 8, magic=0),
        act("reducing", 5, "news"),
        act("active", 4),
    ]
    state: dict[str, Any] = dict.fromkeys(("phase", "serial"), 0) | dict.fromkeys(("profile", "obstacle"), "")
    told = stop.reduced_since(
        PhaseState(
            v=1,
            id="x",
            magic=7,
            account="",
            enforced=False,
            trading="REDUCING",
            why="",
            expires_in_ms=None,
            facts=[],
            acts=newest_first,
            **state,
        )
    )
    assert (told.at, told.why, told.already) == (0.005, "news", True)


def test_money_is_that_of_the_positions_that_the_magic_number_opened() -> None:
    noon = FIRST + DAY_MS // 2
    by_hand = closed(50, noon, 1.0, 51, magic=0)
    other = [deal(60, noon, magic=8, profit=99.0)]
    before = closed(70, FIRST - 1, 5.0, 71)
    deals = [deposit(0, 100.0), *closed(10, noon, -2.0, 11), *by_hand, *other, *before]
    told = of_run.money(Account(1, "USD", deals, 0.0, 0), 7, FIRST, FIRST + DAY_MS)["value"]
    assert (told["trades"], told["wins"], told["result"]) == (2, 1, "-1.06")
    assert of_run.money("no answer", 7, 0, 1) == {"no_data": "no answer"}
    assert "no_data" in of_run.money(Account(1, "USD", [], 0.0, 0), 7, 0, 1)
