"""The Hub's host goes off, and an Inf host says so to a receiver that does not need the Hub."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from lab import faults
from lab.handle import Lab, wait_until
from tests.lab.conftest import restore
from tests.lab.engines import Fleet
from tests.lab.units_and_alerts import asked
from tests.unit.hub.test_webhook import example as genuine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

CANARY = uuid.uuid4().hex
FILE = "/run/hub-watch-test.jsonl"
TOLD_WITHIN_S = 180
RECEIVER = f"""
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open("{FILE}", "ab") as file:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {{name.lower(): text for name, text in self.headers.items()}}
            file.write(json.dumps([headers, body]).encode() + b"\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.HTTPServer((sys.argv[1], 8098), Handler).serve_forever()
"""
WATCHERS = ("inf-01", "inf-02")
WATCHED: dict[str, Any] = {
    "monitoring_hub_watch_url": f"http://127.0.0.1:8098/hook?token={CANARY}",
    "monitoring_hub_watch_secret": f"whsec_{CANARY}{CANARY[:8]}",
    "monitoring_hub_watch_networks": ["127.0.0.1"],
}
HUB_UNITS = ("prometheus.service", "prometheus-alertmanager.service")


@pytest.fixture(scope="module")
def watched(deployed: Fleet) -> Iterator[Fleet]:
    """The fleet with watchers, and a receiver on each of them (its own: no other host is let in for that)."""
    fleet = deployed
    for host in WATCHERS:
        fleet.lab.exec(host, ["rm", "-f", FILE])
        start = ["systemd-run", "--collect", "--unit=hub-watch-test", "python3", "-c", RECEIVER, "127.0.0.1"]
        fleet.lab.exec(host, start)
    fleet.override(**WATCHED)
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-4000:]
    assert CANARY not in ran.output
    yield fleet
    fleet.override()
    restore(fleet)
    for host in WATCHERS:
        fleet.lab.exec(host, ["systemctl", "stop", "hub-watch-test.service"], check=False)


@pytest.mark.slow(reason="three deployments; that both engines bring the same is tried by test_parity.py")
def test_ansible_takes_the_watchers_away_and_brings_them_as_pyinfra_does(watched: Fleet) -> None:
    def watchers() -> dict[str, str]:
        show = ["systemctl", "is-active", "mt5crs-hub-watch.service"]
        return {host: watched.lab.exec(host, show, check=False).stdout.strip() for host in WATCHERS}

    assert watchers() == dict.fromkeys(WATCHERS, "active")
    watched.override()
    ran = watched.playbook("site.yml", "--tags", "monitoring,baseline")
    assert ran.status == 0, ran.output[-4000:]
    assert "active" not in watchers().values()
    watched.override(**WATCHED)
    ran = watched.playbook("site.yml", "--tags", "monitoring,baseline")
    assert ran.status == 0, ran.output[-4000:]
    assert CANARY not in ran.output

    def heard() -> dict[str, float]:
        return asked(watched.lab, 'mt5crs_hub_watch_state{state="well"}')

    wait_until(lambda: heard() == dict.fromkeys(WATCHERS, 1.0), 120, "both to hear the Hub", seen=heard)
    assert watched.pyinfra().record["outcome"] == "unchanged"


def posted(fleet: Fleet, host: str) -> list[tuple[str, str]]:
    """(alert, status) of what a host's receiver was told, in order."""
    text = fleet.lab.exec(host, ["cat", FILE], check=False).stdout
    found: list[dict[str, Any]] = []
    for headers, body in map(json.loads, text.splitlines()):
        assert genuine()(WATCHED["monitoring_hub_watch_secret"], headers, body.encode(), 3600)
        found += json.loads(body)["alerts"]
    assert all(alert["labels"]["seen_from"] == host for alert in found)
    return [(alert["labels"]["alertname"], alert["status"]) for alert in found]


FIRING, RESOLVED = ("Mt5crsHubSilent", "firing"), ("Mt5crsHubSilent", "resolved")


def end(lab: Lab, what: str) -> None:
    if what == "host":
        faults.kill(lab, "hub-01")
    else:
        lab.exec("hub-01", ["systemctl", "stop", what])


def bring_back(lab: Lab, what: str) -> None:
    if what == "host":
        faults.start(lab, "hub-01")
    else:
        lab.exec("hub-01", ["systemctl", "start", what])


@pytest.mark.slow(reason="a silence of two minutes is waited for; unit tests try the same in seconds")
@pytest.mark.parametrize("what", ["host", *HUB_UNITS])
def test_a_dead_hub_is_told_within_three_minutes_and_when_it_is_back(watched: Fleet, what: str) -> None:
    lab = watched.lab

    def heard() -> dict[str, float]:
        return asked(lab, 'mt5crs_hub_watch_state{state="well"}')

    wait_until(lambda: heard() == dict.fromkeys(WATCHERS, 1.0), 90, "both to hear it", seen=heard)
    for host in WATCHERS:
        lab.exec(host, ["rm", "-f", FILE])

    def told() -> list[list[tuple[str, str]]]:
        return [posted(watched, host) for host in WATCHERS]

    began = time.monotonic()
    end(lab, what)
    try:
        wait_until(lambda: told() == [[FIRING]] * 2, TOLD_WITHIN_S, "the Hub's death", seen=told)
        print(f"{what}: told by both after {time.monotonic() - began:.0f} s")
    finally:
        bring_back(lab, what)
    back = time.monotonic()
    wait_until(lambda: told() == [[FIRING, RESOLVED]] * 2, TOLD_WITHIN_S, "its return", seen=told)
    print(f"{what}: told that it is back after {time.monotonic() - back:.0f} s")
    for host in WATCHERS:
        seen_by_others = lab.exec(host, ["sh", "-c", "ps axww; journalctl -b --no-pager"]).stdout
        assert CANARY not in seen_by_others
