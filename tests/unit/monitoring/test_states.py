"""The rules, fed with what the real services export in the states that they are for, and in none of them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.protocol import replies, requests
from mt5crs.protocol.codec import encode
from mt5crs.protocol.events import HEARTBEAT_TOPIC, Heartbeat
from mt5crs.protocol.identifiers import comment_id
from mt5crs.protocol.replies import SymbolReply
from tests.promql import Series, samples
from tests.unit.client.peers import Answer, ScriptedGateway
from tests.unit.gateway.running import Caller, Running, eventually
from tests.unit.monitoring.exported import metrics, of_debian, of_review, of_services
from tests.unit.reconciler.books import snapshot, symbol_spec

from .test_rules import alerts, run_promtool

CLOCKS = ("node_time_seconds", "mt5crs_gateway_time_seconds")
BACKED_UP = ("mt5crs_backup_timestamp_seconds", "mt5crs_restore_proven_timestamp_seconds")
STEP_S, CHANGE_S = 15, 120
"""Before and after the change the figures stay as they were read."""
LOOKS_S = (240, 600)
"""When the rules are looked at: within the five minutes that some count over, after those that some wait."""


def figures(series: Series) -> float:
    """A moment is told as Prometheus would see it whose time began now."""
    return (
        series.value - time.time()
        if series.name.endswith("timestamp_seconds") and series.value
        else series.value
    )


def repeated(value: float, more: int) -> str:
    """A value, and so many times more, as promtool reads it: it knows no short form of what is no number."""
    return " ".join(["NaN"] * (more + 1)) if math.isnan(value) else f"{value!r}x{more}"


def firing(configuration: Path, before: Sequence[Series], after: Sequence[Series]) -> set[str]:
    """Alerts that fire some time after the series went from what they were before to what they are now."""
    was = {str(series): series for series in before}
    rows = []
    for series in after:
        first = was.get(str(series), series)
        values = (
            f"0+{STEP_S}x70"
            if series.name in CLOCKS
            else f"{repeated(figures(first), CHANGE_S // STEP_S)} {repeated(figures(series), 70)}"
        )
        rows.append({"series": str(series), "values": values})
    looks = [
        {"alertname": alert["alert"], "eval_time": f"{look}s", "exp_alerts": []}
        for alert in alerts(configuration)
        for look in LOOKS_S
    ]
    case = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [{"interval": f"{STEP_S}s", "input_series": rows, "alert_rule_test": looks}],
    }
    (configuration / "state.test.yml").write_text(yaml.safe_dump(case))
    done = run_promtool("test", "rules", "state.test.yml", cwd=configuration)
    said = done.stdout + done.stderr
    assert "SUCCESS" in said or "FAILED" in said, said
    assert "parse error" not in said, said
    return set(re.findall(r"alertname: (\w+), time", said))


def test_a_fleet_that_trades_fires_nothing(tmp_path: Path, configuration: Path) -> None:
    with Fleet(tmp_path / "fleet") as fleet:
        for service in ("gateway", "reconciler", "strategy"):
            fleet.start_ready(service)
        before = of_services(fleet)
        fleet.wait(lambda: fleet.state().positions, "a trade")
        fleet.wait(
            lambda: value(of_services(fleet), "mt5crs_gateway_ready") == 1,
            "figures that are not from before the start",
        )
        # Nobody sets the clock of the machine that was recorded, and its backups are of that day.
        passed = ("node_timex_sync_status", *BACKED_UP)
        others = [series for series in of_debian() + of_review(tmp_path) if series.name not in passed]
        assert firing(configuration, before, of_services(fleet) + others) == {"Mt5crsWatchdog"}


def of_gateway(gateway: Running) -> list[Series]:
    time.sleep(1.2)  # the figures are brought up to date once a second
    return list(samples(metrics(gateway.metrics_port), job="gateway", host="gtw-01"))


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[tuple[Running, Caller]]:
    """A gateway with a circuit breaker, and a client with the lease."""
    gateway = Running(tmp_path / "gateway")
    gateway.directory.mkdir()
    gateway.limits[str(MAGIC)]["max_consecutive_failures"] = 2
    try:
        gateway.start()
        trader = gateway.client("strategy")
        trader.lease()
        yield gateway, trader
    finally:
        gateway.close()


def test_states_of_the_gateway(limited: tuple[Running, Caller], configuration: Path) -> None:
    gateway, trader = limited
    before = of_gateway(gateway)
    assert firing(configuration, before, before) == set()

    gateway.client("ops").ask(requests.Halt, scope="FLEET", reason="drill")
    for _ in range(5):
        assert isinstance(trader.order(), replies.Error)
    assert firing(configuration, before, of_gateway(gateway)) == {"Mt5crsHalted", "Mt5crsOrdersRefused"}
    gateway.client("ops").ask(requests.Resume, scope="FLEET", reason="drill is over")
    trader.order()
    assert firing(configuration, before, of_gateway(gateway)) == set()

    gateway.fault({"kind": "retcode", "retcode": 10006}, {"kind": "retcode", "retcode": 10018})
    assert [trader.order().outcome, trader.order().outcome] == ["REJECTED", "REJECTED"]  # type: ignore[union-attr]
    assert firing(configuration, before, of_gateway(gateway)) == {"Mt5crsBreakerOpen"}
    gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="mended")

    gateway.fault({"kind": "lose_request"})
    trader.order(client_order_id="lost")
    assert firing(configuration, before, of_gateway(gateway)) == {"Mt5crsOrdersUnresolved"}
    gateway.client("ops").ask(requests.OrderResolve, client_order_id="lost", reason="not in the terminal")

    for fault, alert in (
        ({"disconnected": True}, "Mt5crsTerminalDown"),
        ({"trade_disabled": True}, "Mt5crsGatewayNotReady"),
        ({"login": 1234}, "Mt5crsGatewayNotReady"),
    ):
        gateway.fault(**fault)
        assert firing(configuration, before, of_gateway(gateway)) == {alert}, fault
    gateway.fault()

    gateway.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.1, magic=0)
    assert firing(configuration, before, of_gateway(gateway)) == {"Mt5crsPositionsUnowned"}


def test_states_of_the_money(limited: tuple[Running, Caller], configuration: Path) -> None:
    gateway, trader = limited
    before = of_gateway(gateway)
    for _ in range(4):
        trader.order(volume=gateway.limits[str(MAGIC)]["max_order_volume"])
    gateway.broker(do="price", symbol="EURUSD", bid=1.05, ask=1.0501)
    assert firing(configuration, before, of_gateway(gateway)) == {
        "Mt5crsLimitNear",
        "Mt5crsDrawdown",
    }


def test_what_the_broker_shows_otherwise_than_expected(
    limited: tuple[Running, Caller], configuration: Path
) -> None:
    gateway, trader = limited
    before = of_gateway(gateway)
    gateway.fault({"kind": "late_fill", "delay_ms": 800})
    trader.order(client_order_id="late")
    gateway.client("ops").ask(requests.OrderResolve, client_order_id="late", reason="not in the terminal")
    eventually(lambda: gateway.metric("mt5crs_gateway_late_fills_total") == 1)
    assert firing(configuration, before, of_gateway(gateway)) == {"Mt5crsLateFill"}
    before = of_gateway(gateway)

    elsewhere = {"magic": MAGIC, "comment": comment_id(MAGIC, "another gateway's")}
    gateway.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.1, **elsewhere)
    assert firing(configuration, before, of_gateway(gateway)) == {"Mt5crsAccountShared"}
    before = of_gateway(gateway)

    for terminal, alert in (
        ({"no_quote": ["EURUSD"]}, "Mt5crsQuotesMissing"),
        ({"clock_ahead_ms": -45_000}, "Mt5crsBrokerClockSkew"),
    ):
        gateway.fault(terminal=terminal)
        assert firing(configuration, before, of_gateway(gateway)) == {alert}


def test_an_order_that_is_at_the_broker_is_not_unresolved_yet(limited: tuple[Running, Caller]) -> None:
    """A strategy that always has one under way would look like one whose order is lost."""
    gateway, trader = limited
    gateway.fault({"kind": "hang", "delay_ms": 3000})
    trader.send(requests.OrderSend, **trader.terms())
    assert value(of_gateway(gateway), "mt5crs_gateway_unresolved_orders", magic=str(MAGIC)) == 0
    eventually(lambda: gateway.health()["healthy"])
    gateway.fault({"kind": "lose_request"})
    trader.order()
    assert value(of_gateway(gateway), "mt5crs_gateway_unresolved_orders", magic=str(MAGIC)) == 1


def test_an_unresolved_order_is_told_after_its_limits_are_gone(limited: tuple[Running, Caller]) -> None:
    gateway, trader = limited
    gateway.fault({"kind": "lose_request"})
    trader.order()
    del gateway.limits[str(MAGIC)]
    gateway.write_clients()
    gateway.client("ops").ask(requests.Ping)
    time.sleep(2.2)
    shown = {(series.name, series.labels.get("magic")): series.value for series in of_gateway(gateway)}
    assert shown["mt5crs_gateway_unresolved_orders", str(MAGIC)] == 1
    assert ("mt5crs_gateway_breaker_open", str(MAGIC)) not in shown


def test_who_may_not_trade_makes_no_series(limited: tuple[Running, Caller]) -> None:
    gateway, _ = limited
    gateway.allow("odd", ["trade"], [987])
    gateway.write_clients()
    time.sleep(2.2)
    assert isinstance(gateway.client("odd", 987).order(lease_epoch=1), replies.Error)
    assert isinstance(gateway.client("watcher", 555).order(lease_epoch=1), replies.Error)
    magics = {
        (series.labels["magic"], series.value)
        for series in of_gateway(gateway)
        if series.name == "mt5crs_gateway_orders_total" and series.labels["outcome"] == "REFUSED"
    }
    assert magics == {("0", 2), (str(MAGIC), 0), ("202402", 0)}


def test_states_of_reconciler_and_strategy(tmp_path: Path, configuration: Path) -> None:
    quick = {"SYNC_TIMEOUT_S": 0.3, "SYNC_RETRY_INTERVAL_S": 0.1, "RECHECK_INTERVAL_S": 1.0}
    with Fleet(tmp_path / "fleet", {"reconciler": quick}) as fleet:
        for service in ("gateway", "reconciler", "strategy"):
            fleet.start_ready(service)
        before = of_services(fleet)
        fleet.kill("gateway")
        fleet.wait(lambda: fleet.state().state == "unknown", "the reconciler not knowing")
        fleet.wait(lambda: fleet.health("strategy")["state"] == "suspended", "the strategy suspended")
        fleet.wait(
            lambda: silent(fleet, "events") > 10 and silent(fleet, "answers") > 10, "ten seconds of silence"
        )
        assert firing(configuration, before, of_services(fleet)) == {
            "Mt5crsGatewaySilent",
            "Mt5crsReconcilerNotReady",
            "Mt5crsStrategySuspended",
        }


def value(found: Sequence[Series], name: str, **labels: str) -> float:
    return next(
        series.value for series in found if series.name == name and labels.items() <= series.labels.items()
    )


def silent(fleet: Fleet, owed: str) -> float:
    """For how long the reconciler says that the gateway owes it answers or events."""
    return value(of_services(fleet), "mt5crs_reconciler_gateway_silent_seconds", owed=owed)


def test_a_gateway_that_sends_events_and_answers_nothing_is_silent(tmp_path: Path) -> None:
    """Events used to keep the only figure young for ever."""
    answering = True

    def answer(request: requests.Request) -> Answer:
        if not answering:
            return None
        if isinstance(request, requests.SyncAll):
            return [encode(snapshot(request.id))]
        return SymbolReply(v=1, id=request.id, spec=symbol_spec("EURUSD"))

    quick = {"SYNC_TIMEOUT_S": 0.3, "SYNC_RETRY_INTERVAL_S": 0.1, "RECHECK_INTERVAL_S": 0.3}
    with ScriptedGateway(answer) as gateway, Fleet(tmp_path / "fleet") as fleet:
        fleet.settings["reconciler"] |= {
            **quick,
            "GATEWAY_PORT": gateway.port,
            "GATEWAY_PUB_PORT": gateway.pub_port,
            "GATEWAY_PUBLIC_KEY": gateway.public,
        }
        fleet.start_ready("reconciler")

        def grown(owed: str, seconds: float) -> bool:
            heartbeat = Heartbeat(
                v=1, stream="s1", seq=1, time_msc=1, interval_ms=100, state="ready", seqs={}
            )
            gateway.publish(HEARTBEAT_TOPIC, heartbeat)
            return silent(fleet, owed) >= seconds

        assert silent(fleet, "answers") == 0, "a reconciler that has just started has been waiting for nobody"
        answering = False
        fleet.wait(lambda: grown("answers", 3.0), "the figure to grow")
        assert silent(fleet, "events") < 1
        answering = True
        fleet.wait(lambda: not grown("answers", 0.001), "the figure to fall")
