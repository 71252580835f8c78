"""A P0 takes the newest deployment back after it has halted; a P1 goes on, and may only reduce."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.state import PROJECT
from tests.lab.engines import Fleet
from tests.lab.test_operator import operate

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture
def incidents(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet; what an incident stopped goes on afterwards."""
    yield fleet
    operate(fleet, "resume", "--reason", "the test is over")
    for magic in ("202401", "202402"):
        operate(fleet, "phase", "activate", "--magic", magic, "--reason", "the test is over")


def opened(fleet: Fleet, *words: str) -> tuple[dict[str, Any], Path]:
    """What `incident open` keeps, and where its report is. It may take as long as a rollback."""
    command = [
        sys.executable,
        "-m",
        "mt5crs",
        "--inventory",
        str(fleet.inventory),
        "incident",
        "open",
        *words,
    ]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=400, check=False, cwd=PROJECT
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    made: dict[str, Any] = json.loads(done.stdout)
    return made, PROJECT / "reports" / "incidents" / f"lab-{made['id']}.md"


def test_a_p0_halts_takes_the_deployment_back_and_reports_it(incidents: Fleet) -> None:
    fleet = incidents
    before = fleet.generations()
    fleet.override(reconciler_recheck_interval_s=12.5)
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-4000:]
    moved = {key for key, generation in fleet.generations().items() if generation != before[key]}
    assert moved

    made, report = opened(fleet, "--priority", "P0", "--what", "quotes froze", "--rollback")

    acts = [act["what"] for act in made["acts"]]
    assert acts[1] == "gtw-01: everything is halted"
    assert acts[-1] == "the newest deployment was taken back"
    assert any(act.startswith("may come from deploy of ") for act in acts), acts
    assert fleet.generations() == before
    assert fleet.running()
    status = json.loads(operate(fleet, "status", "--json").stdout)
    assert [halt["magic"] for halt in status["gtw-01"]["halts"]] == [0], "a rollback lifts no halt"
    text = report.read_text(encoding="utf-8")
    for said in ("quotes froze", "everything is halted", "was taken back", "Root cause", "to be filled in"):
        assert said in text, text

    closed = operate(fleet, "incident", "close", made["id"], "--root-cause", "a drill")
    assert closed.returncode == 0, closed.stdout + closed.stderr
    assert "a drill" in report.read_text(encoding="utf-8")


def test_a_p1_lets_strategies_only_reduce_until_a_person_lifts_it(incidents: Fleet) -> None:
    made, _ = opened(incidents, "--priority", "P1", "--what", "orders are slow", "--reduce")
    assert made["reduced"] == [202401, 202402]
    shown = json.loads(operate(incidents, "phase", "show", "--magic", "202401", "--json").stdout)
    assert shown["gtw-01"]["trading"] == "REDUCING"
    closed = operate(incidents, "incident", "close", made["id"], "--root-cause", "a drill")
    assert "until it is lifted, 202401, 202402 may only reduce" in closed.stdout
