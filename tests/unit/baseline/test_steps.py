"""What is done of a baseline plan, by either engine: all of it, in order, and nothing else."""

import subprocess

import pytest

from deploy.baseline import plan as baseline
from deploy.baseline import steps
from deploy.baseline.host_files import ManagedFile
from deploy.baseline.plan import Plan

FILES = (ManagedFile("/etc/one", b"one"), ManagedFile("/etc/two", b"two"))
ALL = Plan(
    directories=tuple(directory.path for directory in baseline.DIRECTORIES),
    files=("/etc/two",),
    account=True,
    enable=baseline.ENABLED_UNITS,
    reactions=tuple(baseline.REACTIONS),
    release_units=True,
)


def test_a_host_as_wanted_is_left_alone() -> None:
    assert steps.layout(Plan(), FILES) + steps.account(Plan()) + steps.notice(Plan()) == []


def test_everything_that_is_planned_is_done_in_order() -> None:
    directories, file = steps.layout(ALL, FILES)
    assert all(path in directories.script for path in ALL.directories)
    assert file.what == "/etc/two"
    assert file.script.endswith(" /etc/two")
    assert [step.what for step in steps.notice(ALL)] == [
        *(f"enable {unit}" for unit in baseline.ENABLED_UNITS),
        *baseline.REACTIONS,
        "units of the release tool",
    ]


@pytest.mark.parametrize("step", [*steps.layout(ALL, FILES), *steps.account(ALL), *steps.notice(ALL)])
def test_a_shell_understands_each_step(step: steps.Step) -> None:
    assert subprocess.run(["sh", "-n", "-c", step.script], check=False, capture_output=True).stderr == b""


@pytest.mark.parametrize(("there", "made"), [(True, ["usermod"]), (False, ["groupadd", "useradd"])])
def test_the_account_is_made_or_corrected(there: bool, made: list[str]) -> None:
    stubs = "".join(f"{name}() {{ echo {name}; }}; " for name in ("groupadd", "useradd", "usermod"))
    known = f"getent() {{ return {0 if there else 2}; }}; "
    (step,) = steps.account(ALL)
    done = subprocess.run(
        ["sh", "-c", stubs + known + step.script], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == made
