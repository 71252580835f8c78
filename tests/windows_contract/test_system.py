"""The calls into Windows and the service manager, as Wine has them; what it lacks is named here alone."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lab.state import PROJECT
from lab.wine import Windows

LACKING = {
    "test_a_volume_is_flushed": "flush of a volume",
    "test_a_junction_shows_its_target": "junctions",
    "test_rights_are_set_before_content_and_read_back": "access lists (icacls answers 0 and does nothing)",
    "test_a_program_is_asked_to_end": "Ctrl-Break without a console",
}
"""Tests of `test_kernel_on_windows.py` that only a Windows host can show."""
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")

PY = "sys.modules['py'] = types.SimpleNamespace(path=path, error=error)"


@pytest.fixture
def inside(windows: Windows) -> Windows:
    """With the sources, and pytest, which is Python alone."""
    shared = {PROJECT / each: f"/opt/kit/{each}" for each in ("src", "tests")}
    for name in PYTEST:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        shared[Path(spec.origin).parent] = f"/opt/pytest/{name}"
    path = r"Z:\opt\kit\src;Z:\opt\kit;Z:\opt\pytest"
    return replace(windows, shared=shared, variables={"PYTHONPATH": path, "USERNAME": "root"})


def test_the_calls_into_windows(inside: Windows) -> None:
    tests = r"Z:\opt\kit\tests\unit\windows\test_kernel_on_windows.py"
    # `py` of pytest is a single file, which cannot be shared: what is in it.
    run = f"import sys, types, _pytest._py.error as error, _pytest._py.path as path; {PY}; import pytest; "
    options = ["--noconftest", "-p", "no:cacheprovider", "-c", "NUL", "-rA", "-q", tests]
    run += f"sys.exit(pytest.main({options!r}))"
    done = inside.python("-c", run, timeout_s=120)
    outcomes = dict(
        reversed(each) for each in re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE)
    )
    assert len(outcomes) > len(LACKING), done.stdout[-2000:] + done.stderr[-2000:]
    failed = {name for name, outcome in outcomes.items() if outcome != "PASSED"}
    assert failed == set(LACKING), done.stdout[-4000:]


def test_the_service_manager(inside: Windows) -> None:
    done = inside.python(r"Z:\opt\kit\tests\windows_contract\manage.py", r"C:\contract", timeout_s=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    status, refused = found.pop("by hand")
    assert status == 0
    assert "1063" in refused
    assert found == {
        "created": "STOPPED",
        "started": "RUNNING",
        "stopped": "STOPPED",
        "ended in order": True,
        "while it stops": "STOP_PENDING",
        "stopped slowly": "STOPPED",
        "ended by itself": "STOPPED",
        "its status": 7,
        "started again": "RUNNING",
        "deleted": "",
    }
