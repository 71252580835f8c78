"""A critical alert halts at the gateway, by way of Prometheus, Alertmanager and the Hub."""

from __future__ import annotations

import functools
import http.client
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from lab.handle import wait_until
from tests.lab.engines import Fleet
from tests.lab.test_hub import asked, trusting
from tests.lab.units_and_alerts import Unit, alerts

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.slow(reason="deploys the Hub twice; unit tests try the same with a Prometheus of their own"),
]

HALTS_WITHIN_S = 45


def mt5crs(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mt5crs", "--inventory", str(fleet.inventory), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def halts(fleet: Fleet) -> list[dict[str, Any]] | None:
    found: list[dict[str, Any]] | None = asked(fleet, "/api/fleet")["gateways"][0]["halts"]
    return found


@pytest.fixture
def halting(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet with the policy that is the default everywhere but in a lab."""
    directory = fleet.inventory.parent / "host_vars"
    directory.mkdir()
    (directory / "hub-01.yml").write_text(json.dumps({"hub_halt_on": ["WS_DISCONNECTED"]}))
    try:
        ran = fleet.playbook("site.yml", "--tags", "hub")
        assert ran.status == 0, ran.output[-4000:]
        yield fleet
    finally:
        shutil.rmtree(directory)
        Unit(fleet.lab, "gtw-01", "mt5crs-gateway.service").call("start")
        mt5crs(fleet, "resume", "--reason", "the test is over")
        for inf in ("inf-01", "inf-02"):
            mt5crs(fleet, "resume", "--magic", "202401" if inf == "inf-01" else "202402", "--reason", "over")


def test_a_gateway_that_was_lost_comes_back_halted_and_posts_from_elsewhere_are_refused(
    halting: Fleet,
) -> None:
    lab = halting.lab
    address = lab.plan.host("hub-01").address
    secret = functools.partial(http.client.HTTPSConnection, address, 8083, timeout=5, context=trusting())
    plain = functools.partial(http.client.HTTPConnection, address, 8083, timeout=5)
    for line, method, path, status in (
        (secret(), "POST", "/api/alerts/webhook", 403),
        (plain(), "POST", "/api/halt", 403),
        (secret(), "POST", "/api/halt", 401),
        (plain(), "GET", "/api/fleet", 308),
    ):
        line.request(method, path, b"{}" if method == "POST" else None)
        assert line.getresponse().status == status, (line, method, path)
        line.close()
    assert asked(halting, "/health")["healthy"], "the sandbox lets it make its certificate"
    kept = lab.exec("hub-01", ["tail", "-n", "20", "/var/lib/mt5crs/hub/access.jsonl"]).stdout.splitlines()
    found = {(each["path"], each["status"], bool(each["tls"])) for each in map(json.loads, kept)}
    assert found >= {("/api/halt", 403, False), ("/api/halt", 401, True), ("/api/fleet", 308, False)}

    gateway = Unit(lab, "gtw-01", "mt5crs-gateway.service")
    wait_until(lambda: halts(halting) == [], 60, "no halt before", seen=lambda: halts(halting))
    gateway.call("stop")
    wait_until(
        lambda: ("Mt5crsGatewaySilent", "gtw-01") in alerts(lab), 60, "the alert", seen=lambda: alerts(lab)
    )

    def asked_for() -> dict[str, set[str]]:
        """Magic number → what became of the halts that alerts asked for."""
        found: dict[str, set[str]] = {}
        for each in asked(halting, "/api/halts")["halts"]:
            found.setdefault(each["magic"], set()).add(each["outcome"])
        return found

    both = {"202401", "202402"}
    wait_until(
        lambda: asked_for() == {magic: {"due"} for magic in both}, HALTS_WITHIN_S, "halts due", seen=asked_for
    )
    metrics = urllib.request.urlopen(f"https://{address}:8083/metrics", timeout=5, context=trusting()).read()
    assert 'mt5crs_hub_posts_total{path="/api/alerts/webhook",status="202"}' in metrics.decode(), (
        "Alertmanager rang"
    )
    gateway.call("start")
    began = time.monotonic()
    wait_until(
        lambda: {each["magic"] for each in halts(halting) or ()} >= both,
        HALTS_WITHIN_S,
        "both magic numbers to be halted",
        seen=lambda: halts(halting),
    )
    print(f"halted {time.monotonic() - began:.1f} s after the gateway was started")
    told = halts(halting) or []
    assert {each["client"] for each in told} == {"hub-01-halt"}
    assert all(each["reason"].startswith("alert WS_DISCONNECTED since") for each in told)
    wait_until(
        lambda: all("halted" in each and "due" not in each for each in asked_for().values()),
        20,
        "what became of them",
        seen=asked_for,
    )
