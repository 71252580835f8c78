"""The interpreter of a runtime is run before anything is installed into it."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from mt5crs_release.bundles import runtime
from mt5crs_release.errors import FailedError
from mt5crs_release.systems import system
from mt5crs_release.systems.windows.kernel import Kernel
from mt5crs_release.systems.windows.system import Windows


def refused(target: Path) -> str:
    """Why the interpreter in a directory is refused, with the remedy."""
    with pytest.raises(FailedError) as caught:
        runtime._check(target, target)
    return f"{caught.value.message} {caught.value.remedy}"


def interpreter(target: Path, script: str) -> Path:
    python = target / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return target


def test_a_complete_interpreter_is_taken(tmp_path: Path) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=True).create(tmp_path / "runtime")
    runtime._check(tmp_path / "runtime", tmp_path)


def test_an_interpreter_that_was_not_copied_is_named_with_a_remedy(tmp_path: Path) -> None:
    """venv only logs that it could not copy its launcher."""
    said = refused(tmp_path)
    assert "this host's Python is incomplete" in said
    assert "bin/python does not start" in said
    assert "python3-venv" in said


def test_an_interpreter_that_lacks_a_library_is_named(tmp_path: Path) -> None:
    said = refused(interpreter(tmp_path, "echo 'ModuleNotFoundError: No module named _sqlite3'; exit 1"))
    assert "this host's Python is incomplete" in said
    assert "No module named _sqlite3" in said


def test_an_interpreter_of_another_directory_is_refused(tmp_path: Path) -> None:
    assert "believes to be in" in refused(interpreter(tmp_path, f'exec {sys.executable} "$@"'))


def test_pip_is_started_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by its name it refuses on Windows to install pip, which is one of the wheels."""
    commands: list[list[str]] = []
    monkeypatch.setattr(runtime, "_run", lambda command, *_, **__: commands.append(command))
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/pip-26.3-py3-none-any.whl").touch()
    runtime._install(tmp_path, tmp_path)
    assert commands[0][1:3] == ["-m", "pip"]


def test_windows_asks_for_the_stable_abi_and_names_the_official_package() -> None:
    windows: system.System = Windows(Kernel())
    assert windows.runtime_needs() == "import ctypes, sqlite3; ctypes.WinDLL('python3.dll')"
    assert "official NuGet package" in windows.python_remedy()
