"""A killed deployment is found, named and undone by the next run; the Hub's records say so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.state import PROJECT
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

TOOL = "/usr/local/sbin/mt5crs-release"


def kept(fleet: Fleet) -> dict[str, Any]:
    answer = fleet.lab.exec("hub-01", [TOOL, "deployment", "list", "--json"]).stdout
    found: dict[str, Any] = json.loads(answer)
    return found


def begin(fleet: Fleet) -> subprocess.Popen[bytes]:
    """A deployment in a process group of its own."""
    command = [str(Path(sys.executable).with_name("pyinfra")), "-y"]
    command += [str(fleet.inventory.with_suffix(".py")), "deploy.py"]
    return subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def until(fleet: Fleet, phase: str) -> str:
    """Wait until the lock's holder is in a phase that begins so; returns its id."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        holder = kept(fleet)["holder"]
        if holder is not None and str(holder["phase"]).startswith(phase):
            return str(holder["id"])
        time.sleep(0.2)
    raise AssertionError(f"nobody was in phase {phase}")


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_next_run_settles_what_a_stopped_one_left(fleet: Fleet, how: signal.Signals) -> None:
    fleet.override(reconciler_log_level="DEBUG" if how is signal.SIGKILL else "WARNING")
    running = begin(fleet)
    stopped = until(fleet, "activate")
    os.killpg(running.pid, how)
    assert running.wait(timeout=120) == (-9 if how is signal.SIGKILL else 130)

    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert f"unfinished deployment {stopped[:8]}" in ran.output
    assert fleet.running()
    records = {entry["id"]: entry for entry in kept(fleet)["deployments"]}
    assert records[stopped]["outcome"] == "undone"
    assert records[ran.record["id"]]["outcome"] == "changed"
    assert kept(fleet)["holder"] is None


def test_two_deployers_at_once(fleet: Fleet) -> None:
    fleet.override(reconciler_log_level="ERROR")
    first = begin(fleet)
    holder = until(fleet, "")
    second = fleet.pyinfra()
    assert second.status != 0
    assert f"id {holder}" in second.output
    assert second.record["outcome"] == "failed"
    assert first.wait(timeout=240) == 0
    assert fleet.running()
