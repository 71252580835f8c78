"""A lab whose fleet changes all the time (MT5CRS_LIFECYCLE_LAB, default `lifecycle`), and the matrix.

The lab has an Inf host more than the inventory names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab import fleet as labs
from lab.handle import Lab
from lab.state import LabDirectory, open_lab
from tests.faults.fleet.arena import LIMITS
from tests.lab.engines import Fleet
from tests.lab.lifecycle.changes import SPARE
from tests.lab.lifecycle.course import Course
from tests.lab.lifecycle.description import Description
from tests.lab.lifecycle.table import TABLE, closing_table

LAB = os.environ.get("MT5CRS_LIFECYCLE_LAB", "lifecycle")
HOSTS = 5
SETTINGS = {
    # Every trade costs the spread, and labs may lose little.
    "fleet_limits": {**LIMITS, "max_daily_loss": 1e6},
    "fleet_strategy": os.environ.get("MT5CRS_LIFECYCLE_STRATEGY", "all_at_once"),
    # What a killed run leaves waits for the next one, however slow the machine.
    "fleet_confirm_timeout_s": 180,
    "fleet_alerts_unknown_s": 1,
    # What gateway and Inf share keeps them apart from the one's step to the other's, long on a slow machine.
    "monitoring_alert_gateway_silence_s": 60,
    "fleet_step_pause_s": 0,
    "strategy_tick_interval_s": 0.2,
    "strategy_strategy_options": {"hold_s": 0.5},
}


def boot() -> Lab:
    """The lab with all its hosts; what is missing of it is made."""
    labs.up(LAB, lambda _phase: None, HOSTS)
    return Lab.open(LAB)


def empty(lab: Lab, host: str) -> None:
    """Have a host be as it was when it was first booted, under the same address and host key."""
    lab.podman.run("rm", "--force", "--time", "0", "--volumes", lab.container(host))
    boot()


def deploy(course: Course) -> None:
    """Deploy what is described, in whatever state the fleet was left."""
    course.sync()
    ran = course.fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-4000:]


@pytest.fixture(scope="package")
def living() -> Iterator[Course]:
    """The fleet, deployed and trading; removed at the end unless MT5CRS_LIFECYCLE_KEEP is set."""
    kept = LabDirectory(LAB).load() is not None
    lab = boot()
    shutil.rmtree(open_lab(LAB).root / "host_vars", ignore_errors=True)
    members = tuple(host for host in lab.plan.hosts if host.name != SPARE)
    description = Description(lab.directory, replace(lab.plan, hosts=members), SETTINGS)
    description.write()
    course = Course(Fleet(lab), description)
    deploy(course)
    if kept:
        course.forgive()  # a host that was reinstalled by an earlier run has no records of before
    yield course
    if not os.environ.get("MT5CRS_LIFECYCLE_KEEP"):
        labs.down(LAB, lambda _phase: None)


@pytest.fixture
def course(living: Course) -> Iterator[Course]:
    """The fleet as it was described at first; whatever a walk left is taken back."""
    saved, before = living.description.saved(), living.state()
    living.runs.clear()
    yield living
    living.description.restore(saved)
    living.sync()
    spare = living.fleet.lab.exec(SPARE, ["test", "-e", "/opt/mt5crs"], check=False)
    if spare.returncode == 0:
        empty(living.fleet.lab, SPARE)
        living.seen.discard(SPARE)
        living.description.write()
    if living.state().contents != before.contents or not living.fleet.running():
        deploy(living)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The matrix."""
    if TABLE:
        terminalreporter.section("life cycle")
        terminalreporter.write_line("\n".join(closing_table()))
