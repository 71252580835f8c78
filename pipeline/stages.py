"""The stages: which commands each runs, in which order. Only told here; `pipeline.running` runs them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.record import DIRECTORY

UNCHECKED: Final = 3
"""Exit status of a step that found nothing wrong and could not look at everything."""
LABS: Final = Path(".lab")
STAGING: Final = LABS / "staging-fleet" / "inventory.yml"
PRODUCTION: Final = LABS / "prod-fleet" / "inventory.yml"
"""Lab fleets of the pipeline's own; a real fleet is named with STAGING=… and PRODUCTION=…."""


@dataclass(frozen=True)
class Options:
    """What whoever runs the pipeline chooses."""

    strategy: str = "canary"
    staging: Path = STAGING
    production: Path = PRODUCTION
    requests_per_s: int = 100
    load_s: int = 600


@dataclass(frozen=True)
class Planned:
    """One command of a stage."""

    name: str
    command: tuple[str, ...]
    undo: tuple[str, ...] = ()
    """What is run when the command fails."""
    figures: str = ""
    """Name of the JSON file beside the records in which it leaves figures."""
    production: bool = False
    """It touches production: refused while something was not checked."""


NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "quality": ("git", "promtool", "ssh-keygen", "strace", "systemd-analyze"),
    "build": ("git", "mmdebstrap", "ssh-keygen"),
    "integration": ("git", "mmdebstrap", "podman", "ssh", "strace", "unshare"),
    "deploy": ("git", "ssh", "ssh-keygen"),
    "after": ("git", "ssh"),
}
"""Programs that are looked for before a stage begins."""
FREE_MB: Final[Mapping[str, int]] = {
    "quality": 500,
    "build": 1500,
    "integration": 3000,
    "deploy": 1000,
    "after": 100,
}
"""What a stage has to find free on the disk of the project."""


def planned(stage: str, options: Options) -> tuple[Planned, ...]:
    """The commands of a stage."""
    return {
        "quality": _quality,
        "build": _build,
        "integration": _integration,
        "deploy": _deploy,
        "after": _after,
    }[stage](options)


def _quality(_: Options) -> tuple[Planned, ...]:
    return (
        Planned("lint and types", ("make", "lint")),
        Planned("unit tests, coverage", ("make", "coverage"), figures="coverage.json"),
        _scan("sources"),
    )


def _build(_: Options) -> tuple[Planned, ...]:
    return (
        Planned("bundle", ("make", "bundle")),
        Planned("images, bills of materials, provenance", ("make", "images")),
        Planned("every file is as it was signed", _own("verify")),
        _scan("built"),
    )


def _integration(_: Options) -> tuple[Planned, ...]:
    bench = f"--quick --json {DIRECTORY / 'bench.json'}"
    return (
        Planned("release tool killed, disk full", ("make", "faults")),
        Planned("containers, end to end", ("make", "images-test")),
        Planned("lab fleets, end to end; coverage", ("make", "coverage-labs"), figures="coverage-labs.json"),
        Planned("figures", ("make", "bench", f"BENCH={bench}"), figures="bench.json"),
        Planned("ratios against the last release", _own("ratios")),
    )


def _deploy(options: Options) -> tuple[Planned, ...]:
    staging = _rollout("staging", options.staging, options.strategy)
    production = _rollout("production", options.production, options.strategy)
    return (*staging, *production)


def _rollout(name: str, inventory: Path, strategy: str) -> tuple[Planned, ...]:
    fleet = str(inventory.with_suffix(".py"))
    production = name == "production"
    # The deployment waits for health, and goes back by itself; what verify finds is taken back as a fleet.
    back = ("pyinfra", "-y", fleet, "rollback.py", "--data", "part=fleet")
    steps = (
        Planned(
            f"{name}: deployed, {strategy}",
            ("pyinfra", "-y", fleet, "deploy.py", "--data", f"strategy={strategy}"),
            production=production,
        ),
        Planned(
            f"{name}: verified",
            ("make", "verify", f"INVENTORY={inventory}"),
            undo=back,
            production=production,
        ),
    )
    lab = lab_of(inventory)
    if lab is None:
        return steps
    boot = Planned(f"{name}: lab booted", _python("lab", "up", "--name", lab), production=production)
    return (boot, *steps)


def _after(options: Options) -> tuple[Planned, ...]:
    load = ("--per-second", str(options.requests_per_s), "--seconds", str(options.load_s))
    steps = [
        Planned("acceptance", ("make", "verify", f"INVENTORY={options.production}")),
        Planned(
            f"{options.requests_per_s} requests a second, {options.load_s} s",
            _own(
                "load", "--inventory", str(options.production), *load, "--json", str(DIRECTORY / "load.json")
            ),
            figures="load.json",
        ),
        Planned("acceptance after the load", ("make", "verify", f"INVENTORY={options.production}")),
    ]
    return tuple(steps)


def lab_of(inventory: Path) -> str | None:
    """Name of the lab fleet that an inventory is of; None: of another fleet."""
    return inventory.parent.name if inventory.parent.parent == LABS else None


def _scan(what: str) -> Planned:
    name = {"sources": "scan of the sources", "built": "scan of what was built"}[what]
    return Planned(
        name,
        _own("scan", what, "--json", str(DIRECTORY / f"scan-{what}.json")),
        figures=f"scan-{what}.json",
    )


def _own(*words: str) -> tuple[str, ...]:
    return _python("pipeline", *words)


def _python(module: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *words)
