"""Alerts fire in the real Alertmanager when the real thing happens, and end when it is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.handle import Lab, wait_until
from tests.lab.engines import Fleet
from tests.lab.units_and_alerts import Unit, alerts

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

# What is promised: a fault is detected within 60 s and told within 30 s.
FIRES_WITHIN_S = 90
ENDS_WITHIN_S = 90


@pytest.fixture(scope="module")
def lab(deployed: Fleet) -> Lab:
    return deployed.lab


@pytest.fixture
def gateway(lab: Lab) -> Iterator[Unit]:
    unit = Unit(lab, "gtw-01", "mt5crs-gateway.service")
    yield unit
    unit.call("start")
    for inf in ("inf-01", "inf-02"):
        for service in ("reconciler", "strategy"):
            trader = Unit(lab, inf, f"mt5crs-{service}.service")
            if trader.state() in ("failed", "inactive"):
                lab.exec(inf, ["systemctl", "reset-failed", trader.name])
                trader.call("start")
            wait_until(lambda trader=trader: trader.state() == "active", 90, f"{trader.name} on {inf}")  # type: ignore[misc]


def test_no_gateway_means_no_strategy_and_an_alert_until_it_is_back(lab: Lab, gateway: Unit) -> None:
    reconciler = Unit(lab, "inf-01", "mt5crs-reconciler.service")
    strategy = Unit(lab, "inf-01", "mt5crs-strategy.service")
    wait_until(lambda: strategy.state() == "active", 60, "the strategy to run")
    failing, silent = ("Mt5crsStartupSyncFailing", "inf-01"), ("Mt5crsGatewaySilent", "gtw-01")
    wait_until(lambda: not {failing, silent} & alerts(lab), ENDS_WITHIN_S, "no such alert before the test")

    gateway.call("stop")
    wait_until(lambda: gateway.state() == "inactive", 30, "the gateway to stop")
    reconciler.call("restart")

    wait_until(lambda: {failing, silent} <= alerts(lab), FIRES_WITHIN_S, "both alerts")
    assert reconciler.state() != "active"
    assert strategy.state() != "active"
    assert strategy.process() == 0

    gateway.call("start")
    wait_until(lambda: reconciler.state() == "active", 60, "the reconciler to synchronise by itself")
    wait_until(lambda: strategy.state() == "active", 60, "the strategy to start by itself")
    wait_until(lambda: not {failing, silent} & alerts(lab), ENDS_WITHIN_S, "both alerts to end")


def test_a_killed_service_is_told_and_comes_back(lab: Lab, gateway: Unit) -> None:
    reconciler = Unit(lab, "inf-02", "mt5crs-reconciler.service")
    wait_until(lambda: reconciler.state() == "active", 60, "the reconciler to run")
    before = reconciler.process()

    lab.exec("inf-02", ["kill", "-KILL", str(before)])

    wait_until(lambda: reconciler.state() == "active" and reconciler.process() != before, 60, "a new process")
    wait_until(lambda: ("Mt5crsAbnormalExit", "inf-02") in alerts(lab), FIRES_WITHIN_S, "the alert")
