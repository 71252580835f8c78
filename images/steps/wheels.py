"""Our part: the wheels of a bundle, installed with their hashes and compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.services import PYTHON, SERVICES

SITE = "usr/local/lib/python3.13/dist-packages"
PROGRAM = "mt5crs"
"""The only program of the wheels that an image keeps."""
OWN = ("opt", "run", "usr/local", "var/lib/mt5crs")
"""Where our part lies; all else is Debian's."""
ENVIRONMENT = {"PATH": "/usr/bin", "PYTHONHASHSEED": "0", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
"""Of every step: what it makes depends on nothing else."""


def installing(bundle: str, pip: str, below: str) -> list[str]:
    """Return the command that installs an unpacked bundle.

    pip: the name of its wheel. below: where the root is that it is installed into; empty: the command's own.
    """
    command = [PYTHON, f"{bundle}/wheels/{pip}/pip", "install", "--isolated", "--quiet", "--no-index"]
    command += ["--require-hashes", "--no-deps", "--no-compile", "--no-cache-dir", "--break-system-packages"]
    command += ["--root-user-action=ignore", "--disable-pip-version-check"]
    command += [f"--find-links={bundle}/wheels", f"--requirement={bundle}/requirements.txt"]
    return [*command, f"--root={below}"] if below else command


def compiling(below: str, library: str) -> list[str]:
    """Return the command that compiles a directory of Python code in a root (`below`, as above)."""
    inside: Sequence[str] = ("-s", below, "-p", "/") if below else ()
    options = ["-q", "--invalidation-mode", "unchecked-hash", *inside]
    return [PYTHON, "-m", "compileall", *options, f"{below}/{library}"]


def finish(root: Path) -> None:
    """Remove what libraries bring for people, make the directories that services have. OSError."""
    for program in (root / "usr/local/bin").iterdir():
        if program.name != PROGRAM:  # nobody has a shell here
            program.unlink()
    for service in SERVICES:
        for volume in () if service.package else service.volumes:
            (root / volume.lstrip("/")).mkdir(parents=True, exist_ok=True)
            (root / volume.lstrip("/")).chmod(0o750)
    (root / "opt/mt5crs/gateway").mkdir(parents=True)
