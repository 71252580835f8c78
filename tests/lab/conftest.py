"""The fleet that end-to-end tests deploy to: the lab of MT5CRS_LAB_INVENTORY, by default the default lab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import fleet as labs
from lab.handle import Lab
from tests.lab.engines import Fleet, generations_in, running_in

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


LONGEST = (
    "test_windows_gateway",
    "test_canary_secrets",
    "test_controller",
    "test_order_flow",
    "test_strategies",
    "test_bad_input",
    "test_deployment_record",
    "test_blue_green",
    "test_alerts",
)
"""Files in the order in which they are begun, so that none of the long ones is left alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the longest files first; pytest-xdist hands out files in the order in which they come."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def restore(fleet: Fleet) -> None:
    """Deploy what the inventory wants, in one step: how steps follow each other is not tried here."""
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-4000:]


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
    before = deployed.generations()
    yield deployed
    deployed.override()
    now = deployed.statuses()
    if generations_in(now) != before or not running_in(now):
        restore(deployed)
