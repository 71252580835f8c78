"""Images for another kind of processor, tried here: what cannot be run by compose is run by an emulator."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from images.architecture import Architecture, emulator_of
from images.root import in_root
from images.services import PYTHON, SERVICES

_EMULATOR = "emulator"


def run(tree: Path, further: Mapping[str, Path], architecture: Architecture) -> tuple[str, ...]:
    """Run `mt5crs audit` and the programs of Debian's of an image; return what was run.

    The audit imports every module, stores, speaks over an encrypted socket, and runs the unit tests that are
    installed with it. tree: the root of our services; further: that of each package, beside it. ImageError if
    one fails.
    """
    emulator = tree / _EMULATOR
    shutil.copy2(emulator_of(architecture), emulator)
    tried = []
    try:
        in_root(tree, [f"/{_EMULATOR}", PYTHON, "-m", "mt5crs", "audit"])
        tried.append("mt5crs audit")
        for service in SERVICES:
            if service.package:
                program = tree / "emulated"
                shutil.copy2(further[service.package] / service.command[0].lstrip("/"), program)
                in_root(tree, [f"/{_EMULATOR}", "/emulated", "--version"])
                program.unlink()
                tried.append(f"{service.package} --version")
    finally:
        emulator.unlink()
        (tree / "emulated").unlink(missing_ok=True)
        for path in (tree / "tmp").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tuple(tried)
