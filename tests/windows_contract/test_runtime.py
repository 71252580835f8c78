"""The bundle's Windows wheels, installed by pip on Python for Windows with the release tool's own code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tomllib

from deploy.bundle import wheelhouse
from deploy.bundle.archive import origin
from deploy.bundle.build import contents
from lab.state import PROJECT
from lab.wine import PYTHON_VERSION, Windows


def unpacked(directory: Path, without: frozenset[str]) -> Path:
    """A bundle for Windows, without its signature, as the release tool unpacks it."""
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    own = wheelhouse.build_own_wheel(PROJECT, directory)
    locked = wheelhouse.locked_requirements(PROJECT, wheelhouse.WINDOWS)
    requirements = [each for each in locked if each.name not in without] + [wheelhouse.locked_pip(PROJECT)]
    found = wheelhouse.collect(requirements, wheelhouse.WINDOWS, [PYTHON_VERSION], directory)
    wheels = {own.name: own, **found}
    files, _ = contents(version, origin(PROJECT), wheelhouse.WINDOWS, requirements, own, wheels)
    for name, content in files.items():
        path = directory / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory / "unpacked"


@pytest.mark.parametrize(
    "without",
    [
        frozenset({"metatrader5", "numpy"}),
        pytest.param(
            frozenset(),
            marks=pytest.mark.slow(reason="numpy has two thousand files, and is installed as the others are"),
        ),
    ],
    ids=["quick", "all"],
)
def test_a_runtime_is_made_of_the_bundle_or_says_what_python_lacks(
    windows: Windows, tmp_path: Path, without: frozenset[str]
) -> None:
    wheels = unpacked(tmp_path, without)
    places = {PROJECT / "src": "/opt/src", Path(__file__).parent: "/opt/contract", wheels: "/opt/wheelhouse"}
    inside = replace(windows, shared=places, variables={"PYTHONPATH": r"Z:\opt\src"})
    done = inside.python(r"Z:\opt\contract\build.py", timeout_s=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["complete"], found["installed"]) == ("", "")
    assert "this host's Python is incomplete" in found["no stable ABI"]
    assert "python3.dll" in found["no stable ABI"]
    assert "official NuGet package `python`" in found["no stable ABI"]
    # an archive of the official package has the launcher; the one for tests has not
    assert found["launcher"] == "" or "does not start" in found["launcher"]
