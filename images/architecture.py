"""For which processors images are made, and what runs their programs here."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from deploy.bundle.wheelhouse import LINUX, LINUX_ARM64, Platform
from deploy.controller.programs import find
from images.errors import ImageError


@dataclass(frozen=True)
class Architecture:
    """A kind of processor. name: as Debian and OCI call it; wheels: of the bundle that images are made of.

    machine: as Linux calls it. emulator: what runs its programs on another machine.
    """

    name: str
    wheels: Platform
    machine: str
    emulator: str


AMD64 = Architecture("amd64", LINUX, "x86_64", "qemu-x86_64-static")
ARM64 = Architecture("arm64", LINUX_ARM64, "aarch64", "qemu-aarch64-static")
ARCHITECTURES = {each.name: each for each in (AMD64, ARM64)}


def native() -> Architecture:
    """Return this machine's. ImageError if there are no images for it."""
    for each in ARCHITECTURES.values():
        if each.machine == platform.machine():
            return each
    raise ImageError(
        f"this machine is {platform.machine()}, and images are made on "
        f"{' and '.join(each.machine for each in ARCHITECTURES.values())} only: use another machine"
    )


def emulator_of(architecture: Architecture) -> str:
    """Return the program that runs another architecture's programs here. ImageError if it is not there."""
    found = find(architecture.emulator)
    if found is None:
        raise ImageError(
            f"{architecture.emulator} is missing, and images for {architecture.name} are tried before they "
            "are kept: `apt-get install qemu-user-static` as root (Debian and Ubuntu), then build again"
        )
    return found
