"""Programs of this machine: found where the set-up put them, and named with their package when missing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.controller import programs
from deploy.controller.programs import DEBIAN_PACKAGES, LOCKED, MissingProgramError, find, require

PROJECT = Path(__file__).resolve().parents[3]
BARE = {"HOME": "/nonexistent", "PATH": "/nonexistent"}


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_what_the_set_up_installed_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    for name in LOCKED:
        assert find(name) == str(Path(sys.executable).with_name(name))


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("name", [*DEBIAN_PACKAGES, *LOCKED])
def test_missing_program_is_named_with_what_brings_it(name: str) -> None:
    expected = "`make setup`" if name in LOCKED else f"`apt-get install {DEBIAN_PACKAGES[name]}`"
    assert find(name) is None
    with pytest.raises(MissingProgramError, match=rf"^{name} is missing: .*{expected}"):
        require(name)


def test_bundle_is_built_with_nothing_in_the_path(tmp_path: Path) -> None:
    """As on a machine that has no uv of its own, git apart: `env: 'uv': No such file or directory`, once."""
    build = "from pathlib import Path; from deploy.bundle.wheelhouse import LINUX, locked_requirements; "
    build += "print(locked_requirements(Path.cwd(), LINUX)[0])"
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=PROJECT,
        env={**BARE, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Requirement" in done.stdout


def test_bundle_names_the_missing_program_and_no_file_to_mend(tmp_path: Path) -> None:
    build = "import sys; sys.executable = sys.argv[2]; from deploy.bundle import build as bundle; "
    build += "from deploy.controller import programs; "
    build += "programs.SYSTEM_PATH = ''; sys.exit(bundle.main(['--out', sys.argv[1]]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path / "dist"), str(tmp_path / "python")],
        cwd=PROJECT,
        env={**BARE, "MT5CRS_SIGNING_KEY": str(PROJECT / "LICENSE")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bundle: uv is missing: `make setup` puts uv into ")
    assert "pyproject" not in done.stderr


def started_by_name(source: str) -> list[tuple[int, str]]:
    """Line and name of each program that a module starts without asking where it is."""
    found = []
    for node in ast.walk(ast.parse(source)):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        words = node.args[0] if called.startswith(("subprocess.", "os.exec")) and node.args else None  # type: ignore[attr-defined]
        if not isinstance(words, ast.List):
            words = node if isinstance(node, ast.List) else None
        if words is None or not words.elts or not isinstance(words.elts[0], ast.Constant):
            continue
        name = str(words.elts[0].value)
        known = name in DEBIAN_PACKAGES or name in LOCKED
        if (called or known) and os.sep not in name:
            found.append((node.lineno, name))  # type: ignore[attr-defined]
    return found


def test_a_program_started_by_name_is_seen() -> None:
    assert started_by_name('subprocess.run(["openssl", "x"])\nwords = ["ssh", "-q"]\nlist(["one"])') == [
        (1, "openssl"),
        (2, "ssh"),
    ]
    assert started_by_name('subprocess.run([require("ssh"), "-q"]); host(["systemctl", "stop"])') == []


@pytest.mark.parametrize("folder", ["deploy", "lab", "plugins", "tests/fresh", "tests/verify"])
def test_nothing_on_this_machine_is_started_by_a_bare_name(folder: str) -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line} {name}"
        for path in sorted((PROJECT / folder).rglob("*.py"))
        for line, name in started_by_name(path.read_text())
        # Lists of programs, and of packages; what is sent to a host and runs there.
        if path.name not in ("programs.py", "machine.py", "on_host.py")
    ]
    assert found == []
