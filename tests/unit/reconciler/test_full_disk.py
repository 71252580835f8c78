"""A reconciler whose disk takes no more."""

from __future__ import annotations

import pytest

from mt5crs.local_fleet.rehearsal import MAGIC, Fleet

resource = pytest.importorskip("resource", reason="not on Windows")
pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit (Linux)")


def test_what_cannot_be_recorded_is_told_with_file_and_remedy_and_found_afterwards(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    fleet.start_ready("reconciler")
    process = fleet.processes["reconciler"]
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    (record,) = fleet.directory.rglob("reconciler.db-wal")
    # its record may grow no more; its log, which is smaller, may
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (record.stat().st_size, hard))
    fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.2, magic=MAGIC)
    assert fleet.wait_exit("reconciler") not in (0, 78), "a start may help, and is tried again"
    said = fleet.tail("reconciler")
    assert "reconciler.db" in said
    assert "free space on its disk" in said
    fleet.start_ready("reconciler")
    assert [(p.type, p.volume) for p in fleet.state().positions or ()] == [("BUY", 0.2)]
