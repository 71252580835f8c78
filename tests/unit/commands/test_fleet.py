"""The table of a fleet: what was looked at, what needs attention, and what nobody could find out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from deploy.commands import fleet as table
from deploy.commands.fleet import UNKNOWN, Row
from deploy.commands.named_fleet import of_fleet
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.operate.gateways import ask
from tests.unit.operate.test_gateways import halt, inventory

WELL = {"current": "0003-aa", "state": "confirmed", "intact": True, "units": {"mt5crs-x.service": "active"}}


def host(status: Any, differs: list[str] | None) -> Row:
    row = Row("inf-01")
    row.runs_on(status, differs)
    return row


def test_a_host_that_is_as_wanted() -> None:
    row = host({"services": {"reconciler": WELL}}, [])
    assert (row.runs, row.drift, row.wrong, row.unknown) == ("reconciler 0003", "as wanted", [], [])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"state": "provisional"}, "provisional"),
        ({"intact": False, "problems": [".env was changed"]}, "not as it was staged: .env was changed"),
        ({"intact": False}, "not as it was staged: how is not told by the release tool on that host"),
        ({"intact": None}, "intact unknown"),
        ({"drop_ins": ["/etc/x.conf"]}, "others' drop-ins beside its units: /etc/x.conf"),
        ({"units": {"mt5crs-x.service": "failed"}}, "mt5crs-x.service failed"),
        ({"current": None, "state": None, "intact": False, "units": {}}, "never deployed"),
    ],
)
def test_what_is_wrong_with_a_service_is_told(change: dict[str, Any], told: str) -> None:
    row = host({"services": {"reconciler": {**WELL, **change}}}, [])
    assert told in row.runs
    assert row.wrong == [f"reconciler: {told}"]


def test_what_differs_needs_attention_and_what_is_not_known_is_no_none() -> None:
    assert host({"services": {"reconciler": WELL}}, ["reconciler"]).wrong
    silent = host("connection refused", None)
    assert (silent.runs, silent.drift) == (UNKNOWN, UNKNOWN)
    assert silent.unknown == ["what runs (connection refused)"]
    assert host({"services": {}}, None).unknown, "a plan that could not be made is no agreement"


def test_alerts_are_of_hosts_or_of_none_or_unknown() -> None:
    rows = [Row("inf-01"), Row("gtw-01")]
    assert table._with_alerts(rows, [("inf-01", "A (warning)"), ("", "B (critical)")]) == ["B (critical)"]
    assert [row.alerts for row in rows] == ["A (warning)", "none"]
    assert [row.wrong for row in rows] == [["A (warning)"], []]
    table._with_alerts(rows, "Prometheus does not answer")
    assert {row.alerts for row in rows} == {UNKNOWN}


def test_gateways_say_who_may_trade_and_what_is_held(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC)
    fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC + 1)
    found = [
        replace(
            target,
            connection=msgspec.structs.replace(target.connection, sync_timeout_s=1.0, sync_retry_count=1),
        )
        for target in of_fleet(inventory(fleet), None)
    ]
    answers = {answer.name: answer for answer in ask(found, table._look)}
    up, down, trader, stray = Row("gtw-01"), Row("gtw-02"), Row("inf-01"), Row("inf-02")
    up.is_gateway(answers["gtw-01"])
    down.is_gateway(answers["gtw-02"])
    trader.trades(MAGIC, "gtw-01", answers["gtw-01"])
    stray.trades(MAGIC, "gtw-09", None)
    assert (up.trading, up.holds, up.wrong) == ("ready", "2 positions, 0 working orders", [])
    assert (trader.trading, trader.holds) == (f"{MAGIC} without a lease", "1 position, 0 working orders")
    assert down.trading == stray.trading == down.holds == UNKNOWN
    assert down.unknown
    assert "gtw-09 is no gateway of this fleet" in stray.unknown[0]
    status = answers["gtw-01"].value.status  # type: ignore[union-attr]

    def of(*names: str) -> Any:
        guards = [msgspec.structs.replace(each, unresolved=list(names)) for each in status.guards]
        return msgspec.structs.replace(status, guards=guards)

    then = table.settled(of("at the broker", "fate not known"), of("fate not known", "sent since"))
    assert then == of("fate not known"), "an order that is on its way needs nobody's attention"
    assert status.guards
    ask(found[:1], halt)
    stopped = Row("inf-01")
    stopped.trades(MAGIC, "gtw-01", ask(found[:1], table._look)[0])
    assert stopped.wrong == ["HALTED all (drill)"]
