"""The fleet that end-to-end tests deploy to: the lab of MT5CRS_LAB_INVENTORY, by default the default lab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from deploy.fleet.services import NAMES
from lab import fleet as labs
from lab.handle import Lab
from tests.lab.deployers import TOOL
from tests.lab.engines import Fleet, Statuses, access_in, generations_in, running_in

FIRST = "gw0"
"""What pytest-xdist calls its first process; the lab that this one tests stays for the next run."""


def worker() -> str:
    """Which of pytest's processes this is."""
    return os.environ.get("PYTEST_XDIST_WORKER", FIRST)


def lab_name() -> str:
    """Name of the lab whose inventory is tested; every process of pytest-xdist has a lab of its own."""
    inventory = Path(os.environ.get("MT5CRS_LAB_INVENTORY", "inventory/lab.yml"))
    name = inventory.parent.name if inventory.parent.parent.name == ".lab" else "default"
    return name if worker() == FIRST else f"{name}-{worker()}"


TRADING = "order-flow"
"""Group of the tests that share the lab whose strategies trade all the time."""
LONGEST = (
    "test_windows_gateway",
    TRADING,
    "test_canary_secrets",
    "test_strategies",
    "test_bad_input",
    "test_deployment_record",
    "test_blue_green",
    "test_alerts",
)
"""Groups in the order in which they are begun, so that none of the long ones is left alone at the end."""


def group(nodeid: str) -> str:
    """Tests of a group run in one process, one after the other: those of a file, or of a lab that is dear."""
    file = PurePosixPath(nodeid.partition("::")[0])
    return TRADING if "faults" in file.parts else file.stem


class ByLab(LoadScopeScheduling):
    """pytest-xdist's scheduler of groups, with the groups above."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByLab:
    """Hand out tests group by group."""
    return ByLab(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the longest groups first; pytest-xdist hands them out in the order in which they come."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(group(item.nodeid), len(order)))


def restore(fleet: Fleet) -> None:
    """Deploy what the inventory wants, in one step: how steps follow each other is not tried here."""
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-4000:]


def go_back(fleet: Fleet, before: Statuses, now: Statuses) -> bool:
    """Have each host take its own services back to where they were; whether that was all it takes.

    A third of a deployment's work. Lists of who may do what never go back with a generation.
    """
    if access_in(now) != access_in(before) or before.keys() != now.keys():
        return False
    was = generations_in(before)
    moved = [key for key, generation in generations_in(now).items() if was[key] != generation]

    def roll_back(key: tuple[str, str]) -> bool:
        host, service = key
        done = fleet.lab.exec(host, [TOOL, "rollback", service, "--to", was[key]], check=False)
        return done.returncode == 0

    with ThreadPoolExecutor(len(fleet.lab.plan.hosts)) as pool:
        for service in NAMES:
            if not all(pool.map(roll_back, [key for key in moved if key[1] == service])):
                return False
    then = fleet.statuses()
    return generations_in(then) == was and running_in(then)


@pytest.fixture(scope="session")
def deployed() -> Iterator[Fleet]:
    """The fleet, booted and deployed; every override is taken back at the end."""
    labs.up(lab_name(), lambda _phase: None)
    made = Fleet(Lab.open(lab_name()))
    made.override()
    restore(made)
    yield made
    made.override()
    if worker() != FIRST:
        labs.down(lab_name(), lambda _phase: None)


@pytest.fixture
def fleet(deployed: Fleet) -> Iterator[Fleet]:
    """The deployed fleet; what a test changed is taken back, so that the next finds it as it was."""
    before = deployed.statuses()
    yield deployed
    deployed.override()
    now = deployed.statuses()
    as_it_was = generations_in(now) == generations_in(before) and running_in(now)
    if not as_it_was and not go_back(deployed, before, now):
        restore(deployed)
