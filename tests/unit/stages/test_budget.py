"""What a run tells about the time of its tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.budget import Phases, summary

PROJECT = Path(__file__).resolve().parents[3]
TESTS = """
import pytest

@pytest.fixture
def something():
    pass

def test_slow():
    pass

def test_waits_for_its_set_up(something):
    pass

def test_fast():
    pass

@pytest.mark.skip
def test_not_run():
    pass
"""
CLOCK = """
import pytest

SECONDS = {("test_slow", "call"): 31, ("test_waits_for_its_set_up", "setup"): 40}
SECONDS |= {("test_not_run", "setup"): 50}

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.duration = SECONDS.get((item.name, report.when), 0)
    return report
"""


def test_nothing_ran_nothing_is_told() -> None:
    assert summary({}, 30) == []


def test_median_and_worst_and_no_list_while_all_keep_to_the_budget() -> None:
    tests = {"a": Phases(call=1), "b": Phases(call=2), "c": Phases(setup=10, call=19, teardown=1)}
    assert summary(tests, 30) == ["3 tests: median 2.00 s, worst 30.0 s; none over the budget of 30 s"]


def test_over_the_budget_the_longest_is_first_and_set_up_is_named() -> None:
    tests = {"a": Phases(call=31), "b": Phases(setup=40, call=1), "c": Phases(call=30)}
    assert summary(tests, 30) == [
        "3 tests: median 31.00 s, worst 41.0 s; 2 over the budget of 30 s:",
        "   41.0 s  b (40.0 s of it set-up and tear-down)",
        "   31.0 s  a",
    ]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_run_lists_what_is_over_its_budget_and_passes(tmp_path: Path, processes: str) -> None:
    if processes != "0":
        pytest.importorskip("xdist")
    (tmp_path / "test_some.py").write_text(TESTS)
    for name in ("one", "two"):  # pytest compares plugins where directories have a conftest.py of their own
        (tmp_path / name).mkdir()
        (tmp_path / name / "conftest.py").touch()
    (tmp_path / "one" / "test_other.py").write_text("def test_fast(): pass\n")
    (tmp_path / "two" / "test_another.py").write_text("def test_fast(): pass\n")
    (tmp_path / "conftest.py").write_text(CLOCK)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.budget",
        "--budget",
        "30.5",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-p", "xdist", "-n", processes] if processes != "0" else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "test_some.py", "one", "two"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(PROJECT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.partition("time of tests")[2].splitlines()[1:4] == [
        "5 tests: median 0.00 s, worst 40.0 s; 2 over the budget of 30.5 s:",
        "   40.0 s  test_some.py::test_waits_for_its_set_up (40.0 s of it set-up and tear-down)",
        "   31.0 s  test_some.py::test_slow",
    ]
