"""The Hub's queue of reviews: used, shipped and rolled back by its tag alone, as are the others."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.handle import wait_until
from lab.state import PROJECT
from mt5crs.review import verdict
from tests.lab.engines import Fleet
from tests.unit.review.conftest import git

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600),
    pytest.mark.slow(
        reason="tests/unit/review/test_queue.py kills the service, test_both_engines renders it"
    ),
]

HOST, UNIT = "hub-01", "mt5crs-review.service"
GONE = (
    f"systemctl disable --now {UNIT}; rm -rf /etc/systemd/system/{UNIT} /opt/mt5crs/review "
    "/var/lib/mt5crs/review; systemctl daemon-reload; systemctl reset-failed"
)


@pytest.fixture
def queued(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet whose Hub is in the group review too."""
    text = fleet.inventory.read_text()
    tree = yaml.safe_load(text)
    tree["lab"]["children"]["review"] = {"hosts": {HOST: {}}}
    fleet.inventory.write_text(yaml.safe_dump(tree, sort_keys=False))
    yield fleet
    fleet.inventory.write_text(text)
    fleet.lab.exec(HOST, ["sh", "-c", GONE], check=False)


def pid(fleet: Fleet, unit: str = UNIT) -> str:
    return fleet.lab.exec(HOST, ["systemctl", "show", "-p", "MainPID", "--value", unit]).stdout.strip()


def review(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("mt5crs")),
        "--inventory",
        str(fleet.inventory),
        "review",
        *words,
    ]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)


def up(fleet: Fleet) -> list[str]:
    """Whether the Hub's Prometheus reaches the reviews, as it says to the controller."""
    url = f"http://{fleet.lab.plan.host(HOST).address}:9090/api/v1/query?query=up%7Bjob%3D%22review%22%7D"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return [each["value"][1] for each in json.load(answer)["data"]["result"]]


def test_reviews_ship_and_roll_back_alone(queued: Fleet, tmp_path: Path) -> None:
    fleet = queued
    trading, hub = fleet.pids(), pid(fleet, "mt5crs-hub.service")
    key = verdict.signing_key(tmp_path)
    secret = base64.b64encode(key.read_bytes()).decode()
    fleet.override(review_signing_key=secret)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    first = pid(fleet)
    assert first != "0"

    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet")
    (repository / "README.md").write_text("Text.\n")
    told = review(
        fleet, "submit", "--tree", str(repository), "--no-external", "--wait", "60", "--out", str(tmp_path)
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "PASSED" in told.stdout
    assert "external review: not_asked (offline)" in told.stdout
    again = review(fleet, "submit", "--tree", str(repository), "--no-external")
    assert "was answered before" in again.stderr
    assert review(fleet, "show", "--out", str(tmp_path)).returncode == 0

    # What it lets others do to it, as systemd rates the unit that runs.
    rated = fleet.lab.exec(HOST, ["systemd-analyze", "security", "--no-pager", UNIT], check=False).stdout
    assert float(rated.strip().splitlines()[-1].split(": ")[1].split()[0]) <= 1.5, rated[-2000:]
    wait_until(lambda: up(fleet) == ["1"], 40, "the Hub scrapes it", seen=lambda: up(fleet))

    # Killed, it is back.
    fleet.lab.exec(HOST, ["systemctl", "kill", "-s", "KILL", UNIT])
    wait_until(lambda: pid(fleet) not in ("0", first), 20, "another process", seen=lambda: pid(fleet))

    # Another setting by its tag with Ansible, and back: nobody else notices.
    before, generation = pid(fleet), fleet.status(HOST)["review"]["current"]
    fleet.override(review_signing_key=secret, review_budget_day=4.0)
    ran = fleet.playbook("site.yml", "--tags", "review")
    assert ran.status == 0, ran.output[-4000:]
    shipped = pid(fleet)
    assert shipped != before
    assert (fleet.pids(), pid(fleet, "mt5crs-hub.service")) == (trading, hub)
    ran = fleet.playbook("rollback.yml", "--tags", "review")
    assert ran.status == 0, ran.output[-4000:]
    assert fleet.status(HOST)["review"]["current"] == generation
    back = pid(fleet)
    assert back != shipped
    assert (fleet.pids(), pid(fleet, "mt5crs-hub.service")) == (trading, hub)

    # And the reverse: all that trades moves, there and back, and the reviews do not notice.
    values = {
        "gateway_quote_life_s": 901.0,
        "reconciler_recheck_interval_s": 12.5,
        "strategy_order_timeout_s": 5.5,
    }
    fleet.override(review_signing_key=secret, **values)
    ran = fleet.playbook("site.yml", "--tags", "gateway,reconciler,strategy")
    assert ran.status == 0, ran.output[-4000:]
    moved = fleet.pids()
    assert all(moved[key] != trading[key] for key in moved)
    ran = fleet.playbook("rollback.yml", "--tags", "gateway,reconciler,strategy")
    assert ran.status == 0, ran.output[-4000:]
    assert all(now != moved[key] for key, now in fleet.pids().items())
    assert pid(fleet) == back
