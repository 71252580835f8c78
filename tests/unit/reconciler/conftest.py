"""Fleets for the scenario tests: real processes with short time-outs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mt5crs.local_fleet.rehearsal import Fleet

QUICK = {
    "SYNC_TIMEOUT_S": 0.5,
    "SYNC_RETRY_COUNT": 3,
    "SYNC_RETRY_INTERVAL_S": 0.1,
    "RECHECK_INTERVAL_S": 1.0,
    "SILENCE_TIMEOUT_S": 1.0,
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose broker can be acted on; nothing is started."""
    gateway = {"SIM_FAULTS": "true", "HEARTBEAT_INTERVAL_S": 0.2, "POLL_INTERVAL_S": 0.02}
    with Fleet(tmp_path / "fleet", {"gateway": gateway, "reconciler": QUICK}) as made:
        yield made
