"""Steps of workflows that an empty machine can run as GitHub does; and why the others cannot be run here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

WORKFLOWS = Path(__file__).resolve().parents[2] / ".github" / "workflows"
LIGHT = {
    ("ci.yml", "hosts"): ("Install", "Protocol, settings, gateway, reconciler, strategy, release tool"),
    ("ci.yml", "quality"): ("Debian packages", "Lint"),
}
"""(workflow, job): the steps that `make workflow-run` runs."""
NOT_HERE = {
    ("ci.yml", "quality", "Unit tests"): "`make test-fresh-long` runs the unit tests on an empty machine",
    ("ci.yml", "coverage"): "as long as the unit tests, which `make test-fresh-long` runs",
    ("ci.yml", "scan"): "asks OSV, which may not be reached; `make scan` is the same command",
    ("ci.yml", "fresh"): "makes empty machines itself; `make test-fresh-long` is the same command",
    ("ci.yml", "ubuntu"): "hosts of Ubuntu need its keyring; `make demo` is the same command, on Debian",
    ("ci.yml", "images"): "mounts and boots containers; `make images-test` is the same command",
    ("ci.yml", "lab"): "boots a fleet; `make demo` and `make test` are the same commands",
    ("deploy.yml", "deploy"): "deploys to a fleet; `make pipeline-deploy` does so to lab fleets",
    (
        "release.yml",
        "release",
    ): "publishes with GitHub's token; the step that compares tag and version is run",
    ("windows.yml", "unit"): "needs Windows",
    (
        "windows.yml",
        "wine",
    ): "fetches Python for Windows with PowerShell; `make windows-contract-long` is the rest",
    ("windows.yml", "converge"): "needs Windows with WSL",
}
"""(workflow, job[, step]): why it is not run."""
SHELL = ("/bin/bash", "--noprofile", "--norc", "-eo", "pipefail")
"""What GitHub runs a step with on Linux, when the workflow names bash or nothing."""
_MATRIX = re.compile(r"\$\{\{ *matrix\.(\w+) *\}\}")


@dataclass(frozen=True)
class Step:
    """A step as it is run: its name, and a script that sets what the workflow sets."""

    name: str
    script: str


def jobs(workflow: str) -> dict[str, Any]:
    """The jobs of a workflow."""
    found: dict[str, Any] = yaml.safe_load((WORKFLOWS / workflow).read_text(encoding="utf-8"))["jobs"]
    return found


def steps(workflow: str, job: str, names: tuple[str, ...], matrix: Mapping[str, str]) -> list[Step]:
    """The named steps of a job. KeyError when one is not there, or wants another value than the matrix's."""
    of = jobs(workflow)[job]
    by_name = {step["name"]: step for step in of["steps"] if "name" in step}
    found = []
    for name in names:
        step = by_name[name]
        given = {**of.get("env", {}), **step.get("env", {})}
        lines = [f"export {key}={shlex.quote(_resolved(str(value), matrix))}" for key, value in given.items()]
        found.append(Step(f"{workflow}, {job}: {name}", "\n".join([*lines, step["run"]])))
    return found


def _resolved(value: str, matrix: Mapping[str, str]) -> str:
    made = _MATRIX.sub(lambda found: matrix[found[1]], value)
    if "${{" in made:
        raise KeyError(made)
    return made
