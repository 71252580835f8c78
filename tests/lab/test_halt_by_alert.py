"""A critical alert halts at the gateway, by way of Prometheus, Alertmanager and the Hub."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from lab.handle import wait_until
from tests.lab.engines import Fleet
from tests.lab.test_hub import asked
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
    url = f"http://{address}:8083/api/alerts/webhook"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=5)
    assert refused.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(
            urllib.request.Request(f"http://{address}:8083/api/halt", data=b"{}"), timeout=5
        )
    assert refused.value.code == 403

    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE  # its own: a person compares it once
    with urllib.request.urlopen(f"https://{address}:8083/health", timeout=5, context=trusting) as answer:
        assert answer.status == 200, "the sandbox lets it make its certificate"

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
    with urllib.request.urlopen(f"http://{address}:8083/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    assert 'mt5crs_hub_posts_total{path="/api/alerts/webhook",status="202"}' in metrics, "Alertmanager rang"
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
