"""Packages are installed though another program holds apt's locks for a while; a stand-in plays apt-get."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.baseline import apt
from deploy.fleet.vault_password import PROJECT

HELD = "E: Could not get lock /var/lib/{lock}. It is held by process 7 (unattended-upgr)"
FRONTEND = f"{HELD.format(lock='dpkg/lock-frontend')}\nE: Unable to acquire the dpkg frontend lock"
LISTS = f"{HELD.format(lock='apt/lists/lock')}\nE: Unable to lock directory /var/lib/apt/lists/"
ABSENT = "E: Unable to locate package tree"


class AptGet:
    """Answers what it is told, one after the other; empty text is success."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        program = directory / "apt-get"
        program.write_text(
            f"""#!/bin/sh
echo "$1 $DEBIAN_FRONTEND" >>{directory}/calls
number=$(wc -l <{directory}/calls)
cat {directory}/answer-$number
[ ! -s {directory}/answer-$number ]
"""
        )
        program.chmod(0o755)

    def install(self, *answers: str, wait_s: int = 60) -> tuple[int, list[str], str]:
        """Exit status, the calls made, everything said."""
        for number, answer in enumerate(answers, 1):
            (self.directory / f"answer-{number}").write_text(answer)
        script = apt.patient("DEBIAN_FRONTEND=noninteractive apt-get install tree", wait_s)
        environment = {"PATH": f"{self.directory}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        calls = (self.directory / "calls").read_text().splitlines()
        return done.returncode, calls, done.stdout + done.stderr


@pytest.fixture
def apt_get(tmp_path: Path) -> AptGet:
    return AptGet(tmp_path)


def test_the_lists_are_fetched_only_when_those_at_hand_do_not_do(apt_get: AptGet) -> None:
    assert apt_get.install("")[:2] == (0, ["install noninteractive"])


def test_lists_that_another_program_is_fetching_are_waited_for(apt_get: AptGet) -> None:
    status, calls, _ = apt_get.install(ABSENT, LISTS, "", "")
    assert (status, [call.split()[0] for call in calls]) == (0, ["install", "update", "update", "install"])


@pytest.mark.parametrize("answers", [(FRONTEND,), (ABSENT, LISTS)], ids=["dpkg", "lists"])
def test_when_time_is_up_the_holder_is_named(apt_get: AptGet, answers: tuple[str, ...]) -> None:
    status, calls, said = apt_get.install(*answers, wait_s=0)
    assert (status, len(calls)) == (1, len(answers))
    assert "held by process 7 (unattended-upgr)" in said
    assert "another program, named above, has held apt's lock for 0 s" in said


def test_another_failure_is_not_blamed_on_a_lock(apt_get: AptGet) -> None:
    status, calls, said = apt_get.install(ABSENT, "", ABSENT)
    assert (status, len(calls)) == (1, 3)
    assert "another program" not in said


def test_both_engines_wait_alike() -> None:
    tasks = yaml.safe_load((PROJECT / "roles/baseline/tasks/packages.yml").read_text())
    block = next(task for task in tasks if "block" in task)
    waits = [
        task["ansible.builtin.apt"]["lock_timeout"]
        for task in (*block["block"], *block["rescue"])
        if "ansible.builtin.apt" in task
    ]
    assert waits == [apt.LOCK_WAIT_S, apt.LOCK_WAIT_S]
