"""The report of a day: exact to the cent, nothing invented, and other people's text stays text."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from deploy.commands import daily
from deploy.commands.named_fleet import of_fleet
from deploy.daily import on_host, page
from deploy.daily.asking import ANOMALIES, Account, anomalies, asked_of, document
from deploy.daily.reckoning import DAY_MS, DEFINITIONS, balance, bounds, cents, reckon
from deploy.fleet.inventory import Fleet as Inventory
from mt5crs.__main__ import main
from mt5crs.broker.sim.faults import SendFault
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.operate.gateways import ask
from mt5crs.protocol.records import Deal
from tests.unit.checks.conftest import fleet
from tests.unit.gateway.counter import START_MSC, Counter
from tests.unit.gateway.test_limits import filled
from tests.unit.operate.test_gateways import inventory

__all__ = ["fleet"]

FIRST = 20_000 * DAY_MS
HOUR_MS = DAY_MS // 24
DATE = "20241004"


def deal(ticket: int, at_msc: int, **changed: Any) -> Deal:
    numbers: dict[str, Any] = {**dict.fromkeys(("order", "reason"), 1), "position_id": ticket}
    money = dict.fromkeys(("price", "commission", "fee", "swap", "profit"), 0.0)
    good = Deal(
        ticket=ticket,
        symbol="EURUSD",
        type="BUY",
        entry="IN",
        magic=7,
        volume=0.5,
        comment="",
        time_msc=at_msc,
        **numbers,
        **money,
    )
    return msgspec.structs.replace(good, **changed)


def deposit(at_msc: int, value: float, ticket: int = 1) -> Deal:
    return deal(ticket, at_msc, type="BALANCE", position_id=0, symbol="", magic=0, volume=0.0, profit=value)


def closed(position: int, at_msc: int, profit: float, ticket: int, **changed: Any) -> list[Deal]:
    """A position that was opened an hour before it is closed."""
    opening = deal(position, at_msc - 3_600_000, commission=-0.03)
    closing = deal(ticket, at_msc, type="SELL", entry="OUT", position_id=position, profit=profit, **changed)
    return [opening, closing]


# ---- money ----


def test_the_day_that_is_named_is_the_brokers() -> None:
    assert bounds(DATE) == (FIRST, FIRST + DAY_MS)
    for wrong in ("2024104", "20241304", "20240230", "today", "2024-1-1", "\uff12" * 8):
        with pytest.raises(ValueError, match="is no date such as"):
            bounds(wrong)


def test_a_year_of_reports_adds_up_to_the_books_to_the_cent() -> None:
    chance = random.Random(5)  # noqa: S311  (no secret)
    deals, said, ticket = [deposit(FIRST, 10_000.0)], Decimal("10000"), 2
    for _ in range(300):
        at = FIRST + chance.randrange(365 * DAY_MS)
        profit, swap = round(chance.uniform(-90, 90), 2), round(chance.uniform(-1, 0), 3)
        made = closed(ticket, at, profit, ticket + 1, swap=swap)
        deals += made
        said += Decimal(f"{profit:.2f}") + Decimal(f"{swap:.3f}") - Decimal("0.03")
        ticket += 2
    chance.shuffle(deals)
    before = Decimal(0)
    for number in range(-1, 365):
        day = reckon(deals, FIRST + number * DAY_MS, FIRST + (number + 1) * DAY_MS)
        assert day.opening == before
        assert day.closing == day.opening + day.result + day.deposits
        assert sum(day.by_symbol.values()) == sum(day.by_hour.values()) == day.result
        before = day.closing
    assert before == said == balance(deals)


def test_trades_are_positions_that_were_closed_whole_on_that_day() -> None:
    won = closed(10, FIRST + DAY_MS // 2, 5.0, 11)
    over_night = closed(20, FIRST + 1000, -2.0, 21)
    half = [deal(30, FIRST + 5), deal(31, FIRST + 6, type="SELL", entry="OUT", position_id=30, volume=0.2)]
    later = closed(40, FIRST + DAY_MS, 9.0, 41)
    before = closed(60, FIRST - 1, 8.0, 61)
    by_hand = closed(50, FIRST + DAY_MS // 2, 1.0, 51, magic=0)
    day = reckon(
        [deposit(0, 100.0), *won, *over_night, *half, *later, *by_hand, *before], FIRST, FIRST + DAY_MS
    )
    assert [(trade.position, trade.result) for trade in day.trades] == [
        (20, Decimal("-2.03")),
        (10, Decimal("4.97")),
        (50, Decimal("0.97")),
    ]
    assert {trade.magic for trade in day.trades} == {7}, "whoever closed it"
    assert day.win_rate == pytest.approx(2 / 3)
    assert day.profit_factor == pytest.approx((4.97 + 0.97) / 2.03)
    assert day.opening == Decimal("107.94"), "with the commission of the position that was open over night"


def test_a_withdrawal_is_no_drawdown_and_without_trades_there_is_no_rate() -> None:
    noon = FIRST + DAY_MS // 2
    money = [deposit(0, 100.0), deposit(noon, -50.0, ticket=2)]
    day = reckon(money, FIRST, FIRST + DAY_MS)
    assert (day.drawdown, day.deposits, day.win_rate, day.profit_factor) == (0, -50, None, None)
    lost = reckon([*money, *closed(9, noon + 1, -4.0, 10)], FIRST, FIRST + DAY_MS)
    assert cents(lost.drawdown) == Decimal("4.03")


# ---- what hosts say ----


@pytest.mark.parametrize(("days", "step"), [(1, 60), (6, 60), (30, 260)])
def test_alerts_of_a_long_run_are_asked_for_less_often_than_prometheus_refuses(
    days: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def ask_prometheus(_: dict[str, Any], what: str, **parameters: Any) -> list[dict[str, Any]]:
        asked.append(parameters)
        metric = {"alertname": "A", "host": "h", "severity": "critical"}
        return [{"metric": metric, "values": [[0, "1"], [step, "1"]]}] if what == "query_range" else [{}]

    monkeypatch.setattr(on_host, "_ask", ask_prometheus)
    (one,) = on_host.alerts({"from_utc_msc": 0, "until": days * 86_400.0})
    assert asked[-1]["step"] == step
    assert days * 86_400 / step <= 11_000
    assert one["minutes"] == 2 * step // 60


def test_submissions_are_counted_by_what_became_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(tmp_path, max_order_volume=1.0)
    filled(counter.order())
    counter.order(volume=3.0)
    counter.now += 2 * DAY_MS
    counter.price(1.2)
    counter.epoch = counter.control.acquire(7, "c", "run", 60_000)
    filled(counter.order())
    counter.control.halt("FLEET", 0, "ops", "drill")
    monkeypatch.setattr(on_host, "STATE", tmp_path)
    first = START_MSC // DAY_MS * DAY_MS
    wide = {"from_utc_msc": 0, "to_utc_msc": 2**60}  # what was refused bears this machine's time
    told = on_host.submissions({"from_msc": first, "to_msc": first + DAY_MS, **wide})
    one = {"kind": "ORDER_SEND", "magic": 7, "count": 1}
    assert told["counts"] == [
        {**one, "result": "FILLED", "reason": ""},
        {**one, "result": "REFUSED", "reason": "LIMIT max_order_volume"},
    ]
    assert first <= told["oldest"] < first + DAY_MS
    (act,) = on_host.acts({"from_utc_msc": counter.now, "to_utc_msc": counter.now + 1})
    assert (act["act"], act["reason"]) == ("halt", "drill")


@pytest.mark.parametrize("hour", [1, 23])
def test_what_was_not_sent_counts_on_the_brokers_day_whatever_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hour: int
) -> None:
    """An hour from the broker's midnight, whose clock is two hours ahead of this host's."""
    first = START_MSC // DAY_MS * DAY_MS
    counter = Counter(tmp_path, now=first + hour * HOUR_MS)
    monkeypatch.setattr("time.time_ns", lambda: (counter.now - 2 * HOUR_MS) * 1_000_000)
    counter.fault(SendFault(kind="too_late"))
    counter.order()
    counter.limits[7] = msgspec.structs.replace(counter.limits[7], dry_run=True)
    counter.order()
    counter.control.halt("FLEET", 0, "ops", "drill")
    counter.order()
    rows = counter.journal._db.execute("SELECT state, sent_msc FROM submissions").fetchall()
    assert rows == [("refused", counter.now - 2 * HOUR_MS)] * 3, "one clock for all that was not sent"
    monkeypatch.setattr(on_host, "STATE", tmp_path)

    def of_day(day: int) -> list[tuple[str, str]]:
        begins = first + day * DAY_MS
        told = on_host.submissions(asked_of(begins, begins + DAY_MS, 2 * HOUR_MS, 0.0))
        return [(one["result"], one["reason"]) for one in told["counts"]]

    assert of_day(0) == [("DRY_RUN", ""), ("REFUSED", "EXPIRED valid_ms"), ("REFUSED", "HALTED")]
    assert of_day(-1) == of_day(1) == []


def test_a_section_that_cannot_be_looked_at_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_host, "STATE", tmp_path / "none")
    asked = {
        "gateway": True,
        "prometheus": "http://127.0.0.1:1",
        "until": 2,
        "from_utc_msc": 0,
        "to_utc_msc": 1,
    }
    told = on_host.answer({**asked, "from_msc": 0, "to_msc": 1})
    assert set(told) == {"submissions", "acts", "alerts", "latency", "deployments"}
    assert {name for name, of in told.items() if "error" not in of} == set()


def test_balance_and_deals_of_a_real_gateway_agree_to_the_cent(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    for magic in (MAGIC, MAGIC + 1):
        fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=magic)
    of = inventory(fleet)
    targets = [target for target in of_fleet(of, None) if target.name == "gtw-01"]
    (answer,) = ask(targets, daily.account_of)
    account = answer.value
    assert isinstance(account, Account)
    assert len(account.deals) == 3
    assert cents(balance(account.deals)) == cents(Decimal(repr(account.balance)))


# ---- the report ----

HOSTILE = '<script>alert("x")</script>\x1b[2J'


def made(account: Account | str, **sections: Any) -> dict[str, Any]:
    """A report of a fleet that has a gateway and nothing else; its host cannot be asked."""
    hosts = {"gtw-01": {}}
    of = Inventory(Path("x.yml"), "staging", hosts, {"gateway": ("gtw-01",), "windows": ("gtw-01",)})
    report = document(of, DATE, {"gtw-01": account}) | sections
    return report | {"anomalies": anomalies(report)}


ACCOUNT = Account(
    5, "USD", [deposit(FIRST - 1, 100.0), *closed(10, FIRST + 5, 4.0, 11)], 103.97, FIRST + DAY_MS
)


def test_what_is_not_known_is_said_and_never_zero() -> None:
    nothing = made("no answer from the gateway")
    assert daily.unknown(nothing)
    for shown in (page.html(nothing), page.text(nothing)):
        assert len(re.findall("(?i)no data: ", shown)) == 6
        assert "no answer from the gateway" in shown
        assert "0.00" not in shown
    early = made(replace(ACCOUNT, deals=[deposit(FIRST + 9 * DAY_MS, 1.0)]))
    assert early["gateways"][0]["money"] == {"no_data": "the first deal of account 5 is of 2024-10-13"}
    assert "shows no deal" in made(replace(ACCOUNT, deals=[]))["gateways"][0]["money"]["no_data"]


def test_a_report_has_its_figures_definitions_and_plots_and_needs_nothing_from_outside() -> None:
    report = made(ACCOUNT)
    money = report["gateways"][0]["money"]["value"]
    assert (money["opening"], money["closing"], money["result"]) == ("99.97", "103.97", "4.00")
    assert money["books"] == {"deals_add_up_to": "103.97", "broker_says": "103.97", "equal": True}
    shown = page.html(report)
    assert {name for name in (*DEFINITIONS, *ANOMALIES) if name not in shown} == set()
    assert shown.count("<polyline") == 2
    assert shown.count("<rect") == 25
    assert re.findall(r"(?:src|href)=|https?://|url\(|@import|<script", shown) == []
    assert "103.97 at the broker: equal" in page.text(report)
    assert json.loads(json.dumps(report)) == report


def test_books_that_do_not_add_up_stand_out() -> None:
    report = made(replace(ACCOUNT, balance=103.98))
    assert "all deals add up to 103.97, the broker says 103.98" in report["anomalies"][0]["text"]
    assert "DIFFERENT" in page.html(report)
    assert "DIFFERENT" in page.text(report)


def test_hostile_text_is_shown_as_text() -> None:
    evil = [deposit(FIRST - 1, 100.0), deal(2, FIRST + 1, symbol=HOSTILE, profit=-1.0)]
    report = made(
        replace(ACCOUNT, deals=evil, currency=HOSTILE),
        alerts={"value": [{"alertname": HOSTILE, "severity": HOSTILE, "host": HOSTILE, "minutes": 1}]},
    )
    shown = page.html(report)
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "\x1b" not in json.dumps(report["gateways"], ensure_ascii=False)


def counts(**by: int) -> dict[str, Any]:
    return {"value": [{"result": result, "count": count} for result, count in by.items()]}


@pytest.mark.parametrize(
    ("orders", "rules"),
    [
        (counts(FILLED=20, REJECTED=4), []),
        (counts(FILLED=20, REJECTED=3, REFUSED=2), ["rejects"]),
        (counts(REJECTED=1), ["fills"]),
        (counts(FILLED=1, UNRESOLVED=1), ["unresolved"]),
        (counts(DRY_RUN=9), []),
        ({"no_data": "x"}, []),
    ],
)
def test_what_stands_out_is_named(orders: dict[str, Any], rules: list[str]) -> None:
    gateway = {"host": "gtw-01", "money": {"no_data": "x"}, "orders": orders}
    slow = {"value": {"inf-01": {"p95": 1.5}}}
    found = anomalies({"gateways": [gateway], "latency": {"no_data": "x"}})
    assert [one["rule"] for one in found] == rules
    found = anomalies({"gateways": [], "latency": slow})
    assert [one["text"] for one in found] == ["inf-01: P95 is 1.50 s"]


def test_the_command_writes_three_files_and_refuses_a_day_that_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = Inventory(Path("x.yml"), "staging", {"gtw-01": {}}, {"gateway": ("gtw-01",), "windows": ("gtw-01",)})
    monkeypatch.setattr(daily, "fleet_of", lambda _: of)
    monkeypatch.setattr(daily, "_accounts", lambda *_: {"gtw-01": ACCOUNT})
    command = ["--inventory", "x.yml", "report", "--output", str(tmp_path)]
    ran = CliRunner().invoke(main, command)
    assert ran.exit_code == 1, "what is not known is no success"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"staging-{DATE}.{kind}" for kind in ("html", "json", "txt")
    ], "by default the broker's yesterday"
    for date, why in (("20991231", "has not begun"), ("yesterday", "no date")):
        refused = CliRunner().invoke(main, [*command, "--date", date])
        assert (refused.exit_code, why in refused.output) == (2, True), refused.output
