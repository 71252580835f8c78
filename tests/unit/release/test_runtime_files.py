"""Code that was changed on a host after its runtime was built is seen, whatever was done to hide it."""

import json
import os
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from mt5crs_release.bundles import runtime_files
from mt5crs_release.bundles.runtime import find_runtime, runtime_name
from mt5crs_release.bundles.runtime_files import problems
from mt5crs_release.bundles.runtime_marker import built_at
from mt5crs_release.generations import generation
from mt5crs_release.storage.journal import timestamp
from mt5crs_release.storage.paths import COMPLETE, Host

CONTENT = "c" * 64
MODULE = "lib/module.py"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A real virtual environment with a module in it, recorded and marked as the tool does it."""
    made = tmp_path / "opt/mt5crs/runtimes" / runtime_name(CONTENT)
    venv.EnvBuilder(with_pip=False, symlinks=True).create(made)
    (made / MODULE).write_text("limit = 5\n")
    marker = {"files": runtime_files.record(made), "content": CONTENT}
    (made / COMPLETE).write_text(json.dumps(marker))
    return made


def change(runtime: Path) -> None:
    """As long as before, and as old as before."""
    path = runtime / MODULE
    told = path.stat()
    path.write_text("limit = 9\n")
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))


def replace_link(runtime: Path) -> None:
    (runtime / "bin/python").unlink()
    (runtime / "bin/python").symlink_to("/bin/sh")


def forget_record(runtime: Path) -> None:
    change(runtime)
    (runtime / runtime_files.RECORD).unlink()


def forge_record(runtime: Path) -> None:
    change(runtime)
    (runtime / runtime_files.RECORD).unlink()
    runtime_files.record(runtime)


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (change, f"{MODULE} of its runtime was changed"),
        (lambda at: (at / MODULE).unlink(), f"{MODULE} of its runtime is missing"),
        (lambda at: (at / "lib/sitecustomize.py").write_text(""), "lib/sitecustomize.py was added"),
        (lambda at: (at / MODULE).chmod(0o666), f"{MODULE} of its runtime was changed"),
        (replace_link, "bin/python of its runtime was changed"),
        (forget_record, "cannot be read"),
        (forge_record, "the record of its runtime was changed"),
    ],
    ids=["changed", "removed", "added", "writable", "link", "no-record", "new-record"],
)
def test_what_was_done_to_a_runtime_is_seen(
    runtime: Path, attack: Callable[[Path], object], says: str
) -> None:
    host = Host(runtime.parents[3])
    assert problems(runtime) == []
    assert find_runtime(host, CONTENT) is not None
    attack(runtime)
    assert says in problems(runtime)[0]
    assert find_runtime(host, CONTENT) is None  # it is built anew, not used


def test_the_generation_that_runs_from_it_is_no_longer_intact(runtime: Path, tmp_path: Path) -> None:
    here = tmp_path / "generation"
    here.mkdir()
    (here / "venv").symlink_to(runtime)
    (here / generation.MANIFEST).write_text(json.dumps({"files": {}, "runtime": runtime.name}))
    assert generation.problems(here) == []
    change(runtime)
    assert generation.problems(here) == [f"{MODULE} of its runtime was changed"]


def test_a_copy_with_the_same_content_is_no_change(runtime: Path) -> None:
    """As after a backup was put back: every time differs, no byte does."""
    path = runtime / MODULE
    text = path.read_text()
    path.unlink()
    path.write_text(text)
    assert problems(runtime) == []


def test_a_runtime_of_an_older_tool_is_not_judged(runtime: Path) -> None:
    (runtime / COMPLETE).write_text(json.dumps({"content": CONTENT}))
    change(runtime)
    assert problems(runtime) == []


def test_many_changes_are_counted(runtime: Path) -> None:
    for number in range(9):
        (runtime / f"lib/added{number}.py").write_text("")
    found = problems(runtime)
    assert len(found) == 6
    assert found[-1] == "4 more files of its runtime"


def test_when_it_was_built_compares_with_when_a_generation_was_staged(runtime: Path) -> None:
    host = Host(runtime.parents[3])
    before = timestamp()
    os.utime(runtime / COMPLETE, (time.time(), time.time()))
    assert before <= built_at(host, runtime.name) <= timestamp()
    assert built_at(host, "none") == ""


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("python3.99", "is not on this host any more (Python 3.99 is)"),
        (None, "is not on this host any more"),
        ("python3", None),
        (f"python3.{sys.version_info.minor}", None),
    ],
)
def test_a_runtime_whose_python_is_gone_starts_nothing(
    runtime: Path, tmp_path: Path, program: str | None, says: str | None
) -> None:
    """As after an upgrade of Debian: the link leads to another version."""
    known = problems(runtime)
    assert known == []
    python = tmp_path / (program or "gone")
    if program is not None:
        python.touch()
    (runtime / "bin/python").unlink()
    (runtime / "bin/python").symlink_to(python)
    told = runtime_files.python_gone(runtime)
    assert told == ([] if says is None else [f"its Python 3.{sys.version_info.minor} {says}"])
    assert [*map(runtime_files.is_gone, told)] == [True] * len(told)
    assert problems(runtime)[: len(told)] == told
