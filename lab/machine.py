"""Can this machine run a lab? Everything that is missing is said at once, with the remedy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.controller.programs import DEBIAN_PACKAGES, MissingProgramError, find, require
from lab.errors import LabError

PROGRAMS = (
    "podman",
    "crun",
    "mmdebstrap",
    "ip",
    "nft",
    "iptables",
    "ssh",
    "ssh-keygen",
    "nsenter",
    "unshare",
)
OLDEST_PODMAN = (4, 0)
STORAGE = Path("/var/lib/containers")
FREE_BYTES_NEEDED = 3 * 1024**3
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 1024


def missing_packages() -> list[str]:
    """Return the Debian packages of the programs that cannot be found, sorted."""
    return sorted({DEBIAN_PACKAGES[program] for program in PROGRAMS if not find(program)})


def program(name: str) -> str:
    """Return the absolute path of a program. LabError if it is missing."""
    try:
        return require(name)
    except MissingProgramError as error:
        raise LabError(str(error)) from None


def _podman_version() -> tuple[int, int] | None:
    program = find("podman")
    if program is None:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _has_overlay() -> bool:
    """Tell whether the kernel has overlayfs, also as a module that nobody asked for yet."""
    filesystems = Path("/proc/filesystems")
    if "overlay" not in filesystems.read_text().split() and (modprobe := find("modprobe")):
        subprocess.run([modprobe, "overlay"], capture_output=True, timeout=30, check=False)
    return "overlay" in filesystems.read_text().split()


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def problems() -> list[str]:
    """Return what keeps this machine from running a lab, each with its remedy; empty if nothing does."""
    found = []
    if os.geteuid() != 0:
        found.append("the lab boots systemd hosts and needs root: run the command again as root")
    if packages := missing_packages():
        found.append(f"programs are missing: install them with `lab/setup` ({' '.join(packages)})")
    if (version := _podman_version()) is not None and version < OLDEST_PODMAN:
        found.append(
            f"podman {version[0]}.{version[1]} is too old for the lab's networks: install 4.0 or newer, as "
            "in Debian 12 or Ubuntu 24.04"
        )
    if not _has_overlay():
        found.append(
            "this kernel has no overlay file system: `modprobe overlay`, or use a machine whose kernel has it"
        )
    free = shutil.disk_usage(_existing(STORAGE)).free
    if free < FREE_BYTES_NEEDED:
        found.append(
            f"{STORAGE} has {free / 1024**3:.1f} GiB free and the lab's images need "
            f"{FREE_BYTES_NEEDED // 1024**3} GiB: free some space"
        )
    return found


def raise_inotify_limit() -> str:
    """Let this machine's root have enough inotify instances for 40 hosts; say what was done.

    Each booted host needs about seven, all counted against the same user; the kernel's default is 128, and a
    systemd that gets none does not boot. LabError if the limit is too low and cannot be raised.
    """
    current = int(INOTIFY_LIMIT.read_text())
    if current >= INOTIFY_INSTANCES:
        return "unchanged"
    try:
        INOTIFY_LIMIT.write_text(f"{INOTIFY_INSTANCES}\n")
    except OSError as error:
        raise LabError(
            f"{INOTIFY_LIMIT} is {current}, too low for the hosts, and cannot be raised ({error.strerror}): "
            f"run `sysctl fs.inotify.max_user_instances={INOTIFY_INSTANCES}` on the machine itself"
        ) from None
    return f"inotify instances raised from {current} to {INOTIFY_INSTANCES}"


def check() -> None:
    """LabError with all problems if this machine cannot run a lab."""
    if found := problems():
        raise LabError("; ".join(found))
