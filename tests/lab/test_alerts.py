"""Alerts fire in the real Alertmanager when the real thing happens, and end when it is over."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from lab.handle import Lab, wait_until
from lab.state import PROJECT
from mt5crs.hub import signature
from tests.lab.engines import Fleet
from tests.lab.units_and_alerts import Unit, alerts, asked

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
    left = "mt5crs_reconciler_startup_sync_failures_consecutive"
    wait_until(
        lambda: asked(lab, left)["inf-01"] >= 2, FIRES_WITHIN_S, "the reconciler's own count in Prometheus"
    )
    assert set(asked(lab, "node_textfile_scrape_error").values()) == {0}
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


CANARY = uuid.uuid4().hex
SECRET = f"whsec_{base64.b64encode(CANARY.encode()).decode()}"
ALERTMANAGER, NOTIFIED = "prometheus-alertmanager.service", "/var/lib/prometheus/alertmanager/nflog"
SIGNED, BROKEN = "/run/webhook-test.signed", "/run/webhook-test.broken"
RECEIVER = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/signed"):
            with open("/run/webhook-test.signed", "a") as file:
                told = {name.lower(): value for name, value in self.headers.items()}
                file.write(json.dumps([told, body.decode()]) + "\\n")
            broken = os.path.exists("/run/webhook-test.broken")
        else:
            with open("/run/webhook-test.jsonl", "ab") as file:
                file.write(body + b"\\n")
            broken = False
        self.send_response(500 if broken else 200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.HTTPServer((sys.argv[1], 8099), Handler).serve_forever()
"""


@pytest.fixture
def webhook(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet with a webhook that a receiver on the Hub listens for, which refuses what is signed."""
    address = fleet.lab.plan.host("hub-01").address
    fleet.lab.exec("hub-01", ["rm", "-f", "/run/webhook-test.jsonl", SIGNED])
    # From the start: an alert that fires already is posted while this deployment goes on.
    fleet.lab.exec("hub-01", ["touch", BROKEN])
    # An earlier run of this test was told of that host: not again for a quarter of an hour.
    forget = f"systemctl stop {ALERTMANAGER}; rm -f {NOTIFIED}; systemctl start {ALERTMANAGER}"
    fleet.lab.exec("hub-01", ["sh", "-c", forget])
    start = ["systemd-run", "--collect", "--unit=webhook-test", "python3", "-c", RECEIVER, address]
    fleet.lab.exec("hub-01", start)
    fleet.override(
        monitoring_webhook_url=f"http://{address}:8099/hook?token={CANARY}",
        monitoring_watchdog_url=f"http://{address}:8099/alive?token={CANARY}",
        monitoring_webhook_networks=[address],
        hub_webhook_url=f"http://{address}:8099/signed?token={CANARY}",
        hub_webhook_secret=SECRET,
        hub_webhook_networks=[address],
    )
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    assert CANARY not in ran.output
    yield fleet
    fleet.lab.exec("hub-01", ["systemctl", "stop", "webhook-test.service"], check=False)


def about(body: str) -> set[tuple[str, str]]:
    """(alert, host) of each alert that a notification tells of."""
    return {
        (each["labels"]["alertname"], each["labels"].get("host", "")) for each in json.loads(body)["alerts"]
    }


def test_a_critical_alert_is_posted_to_the_webhook(webhook: Fleet, gateway: Unit) -> None:
    lab = webhook.lab
    lab.exec("inf-01", ["systemctl", "kill", "-s", "KILL", "mt5crs-reconciler.service"])

    def posted() -> str:
        return lab.exec("hub-01", ["cat", "/run/webhook-test.jsonl"], check=False).stdout

    def told() -> set[tuple[str, str]]:
        return {each for body in posted().splitlines() if body for each in about(body)}

    killed, wanted = ("Mt5crsAbnormalExit", "inf-01"), {"Mt5crsAbnormalExit", "Mt5crsWatchdog"}
    wait_until(
        lambda: killed in told() and wanted <= {name for name, _ in told()},
        FIRES_WITHIN_S,
        f"{killed} and {wanted}",
        seen=posted,
    )
    seen_by_others = lab.exec("hub-01", ["sh", "-c", "ps axww; journalctl -b --no-pager"]).stdout

    assert CANARY not in seen_by_others

    def signed() -> list[tuple[dict[str, str], str]]:
        """What the Hub's service posted of that alert."""
        lines = lab.exec("hub-01", ["cat", SIGNED], check=False).stdout.splitlines()
        return [(of, body) for of, body in map(json.loads, lines) if killed in about(body)]

    wait_until(lambda: bool(signed()), 30, "the same over the Hub")
    headers, body = signed()[0]
    of, at = headers["webhook-id"], int(headers["webhook-timestamp"])
    assert signature.headers(of, at, body.encode(), signature.keys(SECRET)).items() <= headers.items()
    assert SECRET not in seen_by_others

    # It was refused, waits over a restart of the Hub, and is delivered when it is taken again.
    lab.exec("hub-01", ["systemctl", "restart", "mt5crs-hub.service"])

    def tries() -> int:
        return [told["webhook-id"] for told, _ in signed()].count(of)

    refused = tries()
    lab.exec("hub-01", ["rm", BROKEN])
    wait_until(lambda: tries() > refused, 90, "the same to be tried again")
    listed = subprocess.run(
        [sys.executable, "-m", "mt5crs", "--inventory", str(webhook.inventory), "webhook", "list", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    assert json.loads(listed.stdout)["dead"] == [], listed.stderr
