"""The Hub's queue of reviews: used, shipped and rolled back by its tag alone, as are the others."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from lab.handle import wait_until
from lab.state import PROJECT
from mt5crs.review import rehearsal, verdict
from tests.lab.engines import SERVICES, Fleet
from tests.lab.units_and_alerts import asked
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


RUN = "/run/mt5crs-test-reviewer"
ENDPOINT, ASKED, ANSWER = (f"{RUN}/{name}" for name in ("endpoint", "asked", "answer"))
PROVIDER = f"""
import threading, time
from pathlib import Path
from mt5crs.review.rehearsal import ProviderServer, nothing_found

def late(question):
    Path("{ASKED}").write_text("yes")
    while not Path("{ANSWER}").exists():
        time.sleep(0.2)
    return nothing_found(question)

with ProviderServer(late) as server:
    Path("{ENDPOINT}").write_text(server.endpoint)
    threading.Event().wait()
"""
"""A reviewer on the Hub itself, that answers when it is told to."""


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


@pytest.fixture
def reviewer(fleet: Fleet) -> Iterator[str]:
    """The address of a reviewer that has not answered yet."""
    unit = "mt5crs-test-reviewer"
    begin = f"mkdir {RUN} && exec /opt/mt5crs/hub/current/venv/bin/python -c '{PROVIDER}'"
    fleet.lab.exec(HOST, ["systemd-run", "--quiet", f"--unit={unit}", "sh", "-c", begin])
    wait_until(lambda: there(fleet, ENDPOINT), 20, "the reviewer")
    yield fleet.lab.exec(HOST, ["cat", ENDPOINT]).stdout
    fleet.lab.exec(HOST, ["sh", "-c", f"systemctl stop {unit}; rm -rf {RUN}"], check=False)


def there(fleet: Fleet, path: str) -> bool:
    return fleet.lab.exec(HOST, ["test", "-s", path], check=False).returncode == 0


def waiting(fleet: Fleet) -> list[str]:
    """The submissions on the Hub's disk."""
    found = fleet.lab.exec(HOST, ["ls", "/var/lib/mt5crs/review/waiting"]).stdout.split()
    return sorted(name.removesuffix(".review") for name in found if name.endswith(".review"))


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


def repository(where: Path) -> Path:
    """A small repository to review."""
    made = where / "repository"
    made.mkdir()
    git(made, "init", "--quiet")
    (made / "pyproject.toml").write_text('[tool.mypy]\nfiles = ["src"]\n')
    path = made / "src/mt5crs/gateway/a.py"
    path.parent.mkdir(parents=True)
    path.write_text("VALUE = 1\n")
    return made


def up(fleet: Fleet) -> list[str]:
    """Whether the Hub's Prometheus reaches the reviews."""
    return [f"{value:g}" for value in asked(fleet.lab, 'up{job="review"}').values()]


def test_reviews_ship_and_roll_back_alone(queued: Fleet, tmp_path: Path) -> None:
    fleet = queued
    trading, hub = fleet.pids(), pid(fleet, "mt5crs-hub.service")
    key = verdict.signing_key(tmp_path)
    secret = base64.b64encode(key.read_bytes()).decode()
    fleet.override(vault_review_signing_key=secret)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    first = pid(fleet)
    assert first != "0"
    env = fleet.lab.exec(HOST, ["cat", "/opt/mt5crs/review/current/.env"]).stdout
    assert f"REVIEW_SIGNING_KEY='{secret}'" in env

    submit = ("submit", "--tree", str(repository(tmp_path)), "--no-external")
    told = review(fleet, *submit, "--wait", "60", "--out", str(tmp_path))
    assert told.returncode == 0, told.stdout + told.stderr
    assert "PASSED" in told.stdout
    assert "external review: not_asked (offline)" in told.stdout
    assert "was answered before" in review(fleet, *submit).stderr
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
    fleet.override(vault_review_signing_key=secret, review_budget_day=4.0)
    ran = fleet.playbook("site.yml", "--tags", "review")
    assert ran.status == 0, ran.output[-4000:]
    shipped = pid(fleet)
    assert shipped != before
    assert (fleet.pids(), pid(fleet, "mt5crs-hub.service")) == (trading, hub)
    ran = fleet.playbook("rollback.yml", "--tags", "review")
    assert ran.status == 0, ran.output[-4000:]
    assert fleet.status(HOST)["review"]["current"] == generation
    back = pid(fleet)
    assert back not in ("0", shipped)
    assert (fleet.pids(), pid(fleet, "mt5crs-hub.service")) == (trading, hub)

    # The same with pyinfra, which ships what differs: the reviews alone.
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    assert fleet.status(HOST)["review"]["current"] != generation
    shipped = pid(fleet)
    ran = fleet.rollback_with_pyinfra("review")
    assert ran.status == 0, ran.output[-4000:]
    assert fleet.status(HOST)["review"]["current"] == generation
    assert pid(fleet) not in ("0", shipped)
    assert (fleet.pids(), pid(fleet, "mt5crs-hub.service")) == (trading, hub)
    # What was answered is kept, whatever generation answers.
    assert "was answered before" in review(fleet, *submit).stderr


def test_what_waits_is_not_lost_when_what_trades_goes_back(
    queued: Fleet, reviewer: str, tmp_path: Path
) -> None:
    """One review is under way and one waits, while all that trades moves there and back."""
    fleet = queued
    wanted: dict[str, Any] = {
        "review_reviewer": msgspec.to_builtins(rehearsal.reviewer(reviewer)),
        "vault_review_api_key": rehearsal.KEY,
        "review_timeout_s": 600.0,
    }
    fleet.override(**wanted)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    reviews, trading = pid(fleet), fleet.pids()

    submit, ids = ("submit", "--tree", str(repository(tmp_path)), "--no-external"), []
    for threshold in ("90", "80"):
        told = review(fleet, *submit, "--threshold", threshold)
        assert told.returncode == 0, told.stdout + told.stderr
        ids.append(told.stderr.split()[1].rstrip(":"))
    assert "1 before it" in told.stderr
    wait_until(lambda: there(fleet, ASKED), 60, "the reviewer is asked", seen=lambda: waiting(fleet))

    restarts = {
        "gateway_quote_life_s": 901.0,
        "reconciler_recheck_interval_s": 12.5,
        "strategy_order_timeout_s": 5.5,
    }
    fleet.override(**wanted, **restarts)
    ran = fleet.playbook("site.yml", "--tags", ",".join(SERVICES))
    assert ran.status == 0, ran.output[-4000:]
    moved = fleet.pids()
    assert all(moved[key] != trading[key] for key in moved)
    ran = fleet.playbook("rollback.yml", "--tags", "strategy,reconciler")
    assert ran.status == 0, ran.output[-4000:]
    ran = fleet.rollback_with_pyinfra("gateway")
    assert ran.status == 0, ran.output[-4000:]
    assert all(now != moved[key] for key, now in fleet.pids().items())
    assert (pid(fleet), waiting(fleet)) == (reviews, sorted(ids))

    fleet.lab.exec(HOST, ["touch", ANSWER])
    wait_until(lambda: waiting(fleet) == [], 60, "both are answered", seen=lambda: waiting(fleet))
    assert pid(fleet) == reviews
    for name in ids:
        told = review(fleet, "show", name, "--out", str(tmp_path))
        assert told.returncode == 0, told.stdout + told.stderr
        assert "external review: passed (recorded)" in told.stdout
