"""What waits for its confirmation gets more time as long as its deployer lives, and only then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.coordination.deadlines import Waiting, due
from deploy.coordination.sidecar import is_stopped
from lab.handle import wait_until
from lab.state import PROJECT
from tests.unit.fleets import make_inventory
from tests.unit.stand_in import SSH

# Names what waits, then does nothing: its step takes long.
DEPLOYER = """
import sys, time
from pathlib import Path
from deploy.coordination.deadlines import Deadlines
deadlines = Deadlines(Path(sys.argv[1]))
for host in sys.argv[2:]:
    deadlines.waits(host, "strategy", "0002-abc", 1.5)
time.sleep(600)
"""
# Keeps what it was asked, and answers what is written in a file named after the host's address.
TOOL = """
echo "$PPID $command" >> {directory}/asked-$host
cat {directory}/answer-$host || exit 255
"""
ADDRESSES = {"inf-01": "10.9.9.12", "inf-02": "10.9.9.13"}


@dataclass
class Hosts:
    """Inf hosts behind a stand-in for ssh."""

    directory: Path
    inventory: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]]

    def answers(self, host: str, **answer: object) -> None:
        """What the host's release tool answers from now on; nothing: it cannot be reached."""
        path = self.directory / f"answer-{ADDRESSES[host]}"
        path.unlink(missing_ok=True)
        if answer:
            path.write_text(json.dumps(answer))

    def asked(self, host: str) -> list[str]:
        """Process that asked, and its words, of every question so far."""
        path = self.directory / f"asked-{ADDRESSES[host]}"
        return path.read_text().splitlines() if path.exists() else []

    def asked_again(self, host: str, times: int = 1) -> None:
        """Wait until the host was asked so often from now on."""
        before = len(self.asked(host))
        wait_until(lambda: len(self.asked(host)) >= before + times, 30, f"a question to {host}")

    def deployer(self, *waiting: str) -> subprocess.Popen[bytes]:
        """A deployer with generations that wait on these hosts."""
        command = [sys.executable, "-c", DEPLOYER, str(self.inventory), *waiting]
        process = subprocess.Popen(command, cwd=PROJECT, env=self.environment)
        self.started.append(process)
        return process


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    inventory = make_inventory(tmp_path)
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH + TOOL.format(directory=tmp_path))
    ssh.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    made = Hosts(tmp_path, inventory, environment, [])
    for host in ADDRESSES:
        made.answers(host, state="provisional")
    yield made
    for process in made.started:
        process.kill()
        process.wait()


def test_time_is_given_again_and_again_within_a_step(hosts: Hosts) -> None:
    hosts.deployer("inf-01", "inf-02")
    for host in ADDRESSES:
        hosts.asked_again(host, 3)
    words = "extend strategy --generation 0002-abc --confirm-timeout 1.5 --json"
    assert all(question.endswith(words) for host in ADDRESSES for question in hosts.asked(host))


def test_a_stopped_deployer_prolongs_nothing_and_a_dead_one_never_again(hosts: Hosts) -> None:
    deployer = hosts.deployer("inf-01")
    hosts.asked_again("inf-01")
    hosts.deployer("inf-02")
    deployer.send_signal(signal.SIGSTOP)
    wait_until(lambda: is_stopped(deployer.pid), 5, "the stop")
    hosts.asked_again("inf-02")  # by then, one to inf-01 that was under way has arrived
    before = len(hosts.asked("inf-01"))
    hosts.asked_again("inf-02", 3)
    assert len(hosts.asked("inf-01")) == before
    deployer.send_signal(signal.SIGCONT)
    hosts.asked_again("inf-01")
    asks = {int(question.split()[0]) for question in hosts.asked("inf-01")}
    deployer.kill()
    deployer.wait()
    for process in asks:
        wait_until(lambda process=process: not Path(f"/proc/{process}").exists(), 20, "its end")  # type: ignore[misc]


@pytest.mark.parametrize(
    "over",
    [
        {"state": "confirmed", "changed": False},
        {"error": {"kind": "refused", "message": "another generation is provisional"}},
        {"error": {"kind": "failed", "message": "it has gone back already"}},
    ],
)
def test_what_does_not_wait_any_more_is_left_alone(hosts: Hosts, over: dict[str, object]) -> None:
    hosts.answers("inf-01", **over)
    hosts.deployer("inf-01", "inf-02")
    hosts.asked_again("inf-02", 4)
    assert len(hosts.asked("inf-01")) == 1


@pytest.mark.parametrize("answer", [{}, {"error": {"kind": "busy", "message": "another run holds the lock"}}])
def test_a_host_that_is_busy_or_silent_is_asked_again(hosts: Hosts, answer: dict[str, object]) -> None:
    hosts.answers("inf-01", **answer)
    hosts.deployer("inf-01")
    hosts.asked_again("inf-01", 3)


def test_why_nothing_is_prolonged_is_said(hosts: Hosts) -> None:
    beside = subprocess.Popen(
        [sys.executable, "-m", "deploy.coordination.deadlines"],
        cwd=PROJECT,
        env=hosts.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    waiting = {"host": "inf-09", "service": "strategy", "generation": "0002-abc", "timeout_s": 1.5}
    assert beside.stdin is not None
    assert beside.stdout is not None
    beside.stdin.write(json.dumps({"inventory": str(hosts.inventory)}) + "\n" + json.dumps(waiting) + "\n")
    beside.stdin.flush()
    said = beside.stdout.readline()
    assert said.startswith("deadlines could not be prolonged, hosts go back at theirs: inf-09 is not in")
    assert beside.wait(timeout=20) == 1


def test_two_more_tries_are_left_when_the_first_one_is_due() -> None:
    waiting = [Waiting("inf-01", "strategy", "0002-abc", 180, since=100)]
    assert due(waiting, 159) == []
    assert due(waiting, 160) == waiting
