"""The Debian part of an image: unpacked packages without their scripts, and nothing that could run a command.

No shell, no package manager, no other program than Python: what breaks into a service finds nothing to use.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bundle.sbom import DebianPackage
from images.errors import ImageError
from images.steps import debian, monitoring, wheels
from lab.errors import LabError
from lab.image import root_argv, write_root

HOOKS = tuple(
    Path(__file__).resolve().parent / "steps" / name for name in ("add-packages", "record-packages")
)
_ADDED = "added"
_LISTED, _DESCRIBED = "packages.list", "packages.control"
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Root:
    """A root file system in `directory`, and the packages that it and those beside it are made of.

    added: a directory with what each further package holds. described: what Debian says of each package.
    """

    directory: Path
    packages: tuple[DebianPackage, ...]
    added: Path
    described: Mapping[str, str]


def argv(target: Path, mirror: str | None, architecture: str) -> list[str]:
    """Return mmdebstrap's arguments."""
    add, record = HOOKS
    added = " ".join(package for packages in monitoring.PACKAGES.values() for package in packages)
    hooks = [f'--extract-hook={add} "$1" {added}', f'--extract-hook={record} "$1"']
    kept = ["/usr/share/doc/*"]  # licences; some packages have a link to another one's directory
    made = root_argv(debian.DEBIAN, debian.PACKAGES, (), target, mirror, variant="extract", kept=kept)
    return ["--mode=root", f"--architectures={architecture}", *hooks, *made]


def make(target: Path, mirror: str | None, architecture: str, builder: Path | None = None) -> Root:
    """Make the root in `target`, which must not exist, and `added` beside it.

    builder: a root of this machine's architecture that `target` is in, when it is another one's itself.
    ImageError if the mirror or the disk fails.
    """
    try:
        write_root(argv(target, mirror, architecture))
    except LabError as error:
        raise ImageError(str(error)) from None
    packages = parse_packages((target / _LISTED).read_text())
    described = debian.parse_descriptions((target / _DESCRIBED).read_text())
    (target / _LISTED).unlink()
    (target / _DESCRIBED).unlink()
    added = target.with_name(_ADDED)
    (target / _ADDED).rename(added)
    debian.reduce(target)
    beside = {path.name for path in added.iterdir()}
    debian.describe(target, (text for name, text in described.items() if name not in beside))
    compile_code(target, debian.LIBRARY, builder)
    return Root(target, packages, added, described)


def parse_packages(text: str) -> tuple[DebianPackage, ...]:
    """Return the packages that the hook has listed, sorted by name."""
    rows = [line.split("\t") for line in text.splitlines() if line]
    return tuple(sorted((DebianPackage(*row) for row in rows), key=lambda package: package.name))


def compile_code(root: Path, library: str, builder: Path | None = None) -> None:
    """Compile the Python code in a directory of `root`; the builder's Python does it as the root's would."""
    below = f"/{root.relative_to(builder)}" if builder else ""
    in_root(builder or root, wheels.compiling(below, library))


def in_root(root: Path, command: Sequence[str], **further: str) -> str:
    """Run a program of the root in it, as root and with an environment of its own; return what it printed.

    further: of its environment. ImageError if it fails.
    """

    def enter() -> None:
        os.chroot(root)
        os.chdir("/")

    environment = {**wheels.ENVIRONMENT, **further}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            preexec_fn=enter,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(
            f"{command[0]} of the image cannot be run ({error}): build images as root, on a machine of the "
            "image's architecture"
        ) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ImageError(
            f"`{' '.join(command[:4])} …` failed in the image: {said[-1] if said else 'no reason given'}; "
            "look whether the disk is full, then build again"
        )
    return done.stdout
