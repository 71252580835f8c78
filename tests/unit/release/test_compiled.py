"""The tool's modules are compiled once for a host, by root alone; without that it works as well."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from zipimport import zipimporter

import pytest

from deploy.bundle.zipapp_build import build_zipapp
from mt5crs_release import compiled

SOURCES = Path(compiled.__file__).parent
_START = """
import sys
tool, found = sys.argv[1:]
sys.path.insert(0, tool)
import mt5crs_release
mt5crs_release.__path__.insert(0, found)
from mt5crs_release.cli import run as cli
print(cli.__loader__.archive)
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tool as hosts have it, below a directory; whoever runs the test is taken for root."""
    made, base = tmp_path / "mt5crs-release", tmp_path / "base"
    base.mkdir()
    made.write_bytes(build_zipapp(SOURCES))
    monkeypatch.setattr(compiled, "INSTALLED", made)
    monkeypatch.setattr(compiled, "BASE", base)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(compiled, "_of_root_alone", Path.exists)
    return made


def package_of(tool: Path) -> list[str]:
    """Where the tool takes its modules from, first place first."""
    package = [f"{tool}/mt5crs_release"]
    compiled.use(package, zipimporter(str(tool)))
    return package


def files() -> list[Path]:
    """What is kept."""
    return list((compiled.BASE / "mt5crs-release").iterdir())


def started(tool: Path) -> Path:
    """The file that modules really come from."""
    done = subprocess.run(
        [sys.executable, "-IS", "-c", _START, str(tool), package_of(tool)[0]],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())


def test_the_first_call_keeps_what_later_ones_take(tool: Path) -> None:
    assert started(tool) == compiled.kept()
    assert compiled.changed() == []
    before = compiled.kept().stat()
    assert started(tool) == compiled.kept()
    assert compiled.kept().stat().st_ino == before.st_ino
    assert files() == [compiled.kept()]


@pytest.mark.parametrize(("place", "name"), [(compiled, "SOURCES"), (sys, "hexversion")])
def test_another_tool_or_python_makes_another_file_and_the_old_one_goes(
    tool: Path, monkeypatch: pytest.MonkeyPatch, place: object, name: str
) -> None:
    package_of(tool)
    monkeypatch.setattr(place, name, 0xABCDEF)
    assert "abcdef" in package_of(tool)[0] or str(0xABCDEF) in package_of(tool)[0]
    assert files() == [compiled.kept()]


@pytest.mark.parametrize("content", [b"", b"no zip file at all"])
def test_a_file_that_is_none_is_passed_over(tool: Path, content: bytes) -> None:
    package_of(tool)
    compiled.kept().write_bytes(content)
    assert started(tool) == tool


def test_changed_code_is_found(tool: Path) -> None:
    package_of(tool)
    with zipfile.ZipFile(compiled.kept()) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["mt5crs_release/lifecycle/gate.pyc"] = members["mt5crs_release/cli/run.pyc"]
    del members["mt5crs_release/storage/lock.pyc"]
    with zipfile.ZipFile(compiled.kept(), "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    assert compiled.changed() == ["mt5crs_release/lifecycle/gate.py", "mt5crs_release/storage/lock.py"]


def test_others_than_root_make_none(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert package_of(tool) == [f"{tool}/mt5crs_release"]
    assert list(compiled.BASE.iterdir()) == []


def test_a_copy_of_the_tool_leaves_nothing_behind(tool: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(tool.read_bytes())
    assert package_of(copy) == [f"{copy}/mt5crs_release"]
    assert list(compiled.BASE.iterdir()) == []


def test_a_full_disk_is_no_obstacle(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert package_of(tool) == [f"{tool}/mt5crs_release"]
    assert files() == []


@pytest.mark.parametrize(
    ("owner", "mode", "good"),
    [
        (0, 0o100644, True),
        (1000, 0o100644, False),
        (0, 0o100664, False),
        (0, 0o120777, False),
        (0, 0o40755, True),
    ],
)
def test_only_what_root_alone_can_write_is_taken(
    monkeypatch: pytest.MonkeyPatch, owner: int, mode: int, good: bool
) -> None:
    status = os.stat_result((mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "lstat", lambda _: status)
    assert compiled._of_root_alone(Path("/a/path")) is good
