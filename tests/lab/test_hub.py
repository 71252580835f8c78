"""The Hub's service can be down while strategies trade: nobody notices, and nothing is missing afterwards."""

from __future__ import annotations

import json
import ssl
import urllib.request
from typing import Any

import pytest

from lab.handle import wait_until
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

BOOKS = "/var/lib/mt5crs/gateway/sim/broker.db"
DEALS = """
import sqlite3, sys
for (ticket,) in sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True).execute("SELECT ticket FROM deals"):
    print(ticket)
"""
UNIT = "mt5crs-hub.service"


def trusting() -> ssl.SSLContext:
    """Takes the Hub's own certificate, which a person compares once."""
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def asked(fleet: Fleet, path: str) -> Any:
    """What the Hub answers to the controller."""
    address = fleet.lab.plan.host("hub-01").address
    with urllib.request.urlopen(f"https://{address}:8083{path}", timeout=5, context=trusting()) as answer:
        return json.load(answer)


def in_books(fleet: Fleet) -> set[str]:
    return set(fleet.lab.exec("gtw-01", ["python3", "-c", DEALS, BOOKS]).stdout.split())


def shown(fleet: Fleet) -> list[str]:
    return [trade["ticket"] for trade in asked(fleet, "/api/trades?last=10000")["trades"]]


def test_nothing_is_missing_after_the_hub_was_down(fleet: Fleet) -> None:
    pids = fleet.pids()
    fleet.lab.exec("hub-01", ["systemctl", "stop", UNIT])
    try:
        before = in_books(fleet)
        wait_until(lambda: len(in_books(fleet) - before) >= 2, 60, "trades while the Hub is down")
    finally:
        fleet.lab.exec("hub-01", ["systemctl", "start", UNIT])
    wait_until(lambda: asked(fleet, "/api/fleet")["gateways"][0]["current"], 20, "the Hub listens again")
    missed = in_books(fleet)
    wait_until(lambda: missed <= set(shown(fleet)), 20, "every deal of the books")
    once = shown(fleet)
    assert len(once) == len(set(once)), "each deal is kept once"
    gateway = asked(fleet, "/api/fleet")["gateways"][0]
    assert gateway["listener"]["gaps"][0]["reason"] == "the Hub was not running"

    def with_phase() -> set[str]:
        magics = asked(fleet, "/api/fleet")["gateways"][0]["magics"]
        return {each["host"] for each in magics if each["phase"] is not None}

    # It asks for them once it listens.
    wait_until(lambda: with_phase() == {"inf-01", "inf-02"}, 20, "the phase of each magic number")
    assert fleet.pids() == pids
    assert fleet.running()
