"""A lab for fleet faults; its strategies trade all the time (MT5CRS_FAULTS_LAB, default `faults`).

Every process of pytest-xdist has one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import faults
from lab import fleet as labs
from lab.handle import Lab
from tests.faults.fleet.arena import TABLE, Arena, allow_losses, closing_table
from tests.lab.engines import Fleet

LAB = "-".join(
    (
        os.environ.get("MT5CRS_FAULTS_LAB", "faults"),
        *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")]),
    )
)


@pytest.fixture(scope="package")
def traded() -> Iterator[Arena]:
    """The lab, deployed and trading; removed at the end unless MT5CRS_FAULTS_KEEP is set.

    Not kept for the session: what trades all the time takes a fifth of a core from the tests that follow.
    """
    labs.up(LAB, lambda _phase: None)
    faults.heal(LAB)
    arena = Arena(Fleet(Lab.open(LAB)))
    allow_losses(arena.fleet)
    arena.release()
    ran = arena.begin("--data", "strategy=all_at_once").end()
    assert ran.status == 0, ran.output[-4000:]
    yield arena
    arena.fleet.override()
    if not os.environ.get("MT5CRS_FAULTS_KEEP"):
        labs.down(LAB, lambda _phase: None)


@pytest.fixture
def arena(traded: Arena) -> Iterator[Arena]:
    """The fleet, on one release and trading; a test that left it otherwise does not spoil the next one."""
    labs.up(LAB, lambda _phase: None)
    if not traded.fleet.running():
        traded.release()
        ran = traded.begin("--data", "strategy=all_at_once").end()
        assert ran.status == 0, ran.output[-4000:]
    yield traded
    faults.heal(LAB)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The closing table."""
    if TABLE:
        terminalreporter.section("fleet faults")
        terminalreporter.write_line("\n".join(closing_table()))
