"""A stopped deployer sends no heartbeats; one that goes on sends them again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.coordination.sidecar import is_stopped
from lab.handle import wait_until
from lab.state import PROJECT
from tests.unit.stand_in import SSH

# A deployer that starts the heartbeats as `deploy.coordination.fleet_lock` does.
DEPLOYER = """
import json, subprocess, sys, time
beats = subprocess.Popen([sys.executable, "-m", "deploy.coordination.heartbeat"],
                         stdin=subprocess.PIPE, text=True, start_new_session=True)
beats.stdin.write(json.dumps({"hub": {"ansible_host": "hub"}, "id": "x", "every_s": 0.2}) + "\\n")
beats.stdin.flush()
beats.wait()
"""


@pytest.fixture
def deployer(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A deployer whose heartbeats reach a file instead of a Hub: its id, and the file."""
    beats = tmp_path / "beats"
    ssh = tmp_path / "ssh"
    ssh.write_text(f'{SSH}echo "$command" >> {beats}\necho "{{}}"\n')
    ssh.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-c", DEPLOYER], cwd=PROJECT, env=environment)
    yield process.pid, beats
    process.kill()
    process.wait()
    wait_until(lambda: "--gone" in beats.read_text(), 20, "the last heartbeat")


def count(beats: Path) -> int:
    return len(beats.read_text().splitlines()) if beats.exists() else 0


def test_a_stopped_deployer_sends_no_heartbeats(deployer: tuple[int, Path]) -> None:
    process, beats = deployer
    wait_until(lambda: count(beats) > 2, 20, "heartbeats")
    os.kill(process, signal.SIGSTOP)
    wait_until(lambda: is_stopped(process), 5, "the stop")
    time.sleep(0.3)  # one that was under way may still arrive
    before = count(beats)
    time.sleep(1)  # an absence cannot be awaited; five would be due
    assert count(beats) == before
    os.kill(process, signal.SIGCONT)
    wait_until(lambda: count(beats) > before + 1, 20, "heartbeats again")


def test_parts_that_pass_fast_are_told_of_together(tmp_path: Path) -> None:
    beats, ssh = tmp_path / "beats", tmp_path / "ssh"
    ssh.write_text(f'{SSH}echo "$command" >> {beats}\necho "{{}}"\n')
    ssh.chmod(0o755)
    first = {"hub": {"ansible_host": "hub"}, "id": "x", "every_s": 60}
    said = [first, *({"phase": f"part {number}"} for number in range(30))]
    done = subprocess.run(
        [sys.executable, "-m", "deploy.coordination.heartbeat"],
        input="".join(json.dumps(each) + "\n" for each in said),
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, "its deployer has gone"
    told = beats.read_text().splitlines()
    assert len(told) == 1
    assert "part 29" in told[0]
    assert "--gone" in told[0]


@pytest.mark.parametrize(("state", "stopped"), [("T", True), ("S", False), ("R", False), ("t", False)])
def test_a_name_with_parentheses_does_not_hide_the_state(tmp_path: Path, state: str, stopped: bool) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(f"7 (a) T (b) {state} 1 7 7 0")
    assert is_stopped(7, tmp_path) is stopped
    assert not is_stopped(8, tmp_path)
