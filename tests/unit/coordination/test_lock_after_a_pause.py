"""A deployer that was stopped learns that it has lost the lock before it does anything more."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from deploy.coordination.fleet_lock import LIMIT_S, FleetLock
from deploy.rollout.record import Rollout
from tests.unit.stand_in import SSH

LOST = {"lost": True, "error": {"message": "anna on ctl (pyinfra, id b) does"}}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The calls of a Hub that has given the lock to somebody else."""
    calls = tmp_path / "calls"
    ssh = tmp_path / "ssh"
    ssh.write_text(f"{SSH}echo \"$command\" >> {calls}\necho '{json.dumps(LOST)}'\nexit 2\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return calls


@pytest.mark.parametrize("paused_s", [0.0, LIMIT_S + 1.0])
def test_the_hub_is_asked_after_a_pause_only(asked: Path, paused_s: float) -> None:
    rollout = Rollout("pyinfra", "lab")
    lock = FleetLock({"ansible_host": "hub"}, rollout.id, held=True)
    lock._looked = time.monotonic() - paused_s
    rollout.result("gtw-01", "gateway").state = "provisional"
    lock.check(rollout)
    assert rollout.lock_lost is (paused_s > 0)
    assert len(rollout.touched("gtw-01")) == (0 if paused_s else 1)
    assert asked.exists() is (paused_s > 0)
    if paused_s:
        assert "anna on ctl" in rollout.failures[0].message
        assert f"deployment beat {rollout.id}" in asked.read_text()
