"""Windows programs on this machine, for tests: Debian 13 with Wine, CPython for Windows, gateway's wheels.

The root is made once and kept, named by the digest of what it is made of. Programs run in a copy that is
thrown away (an overlay), in namespaces of their own: each starts from the same state, nothing outlives it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bundle.wheelhouse import WINDOWS, Requirement, WheelError, collect, locked_requirements
from deploy.controller.programs import MissingProgramError
from lab.errors import LabError
from lab.image import Extra, root_argv, write_root
from lab.machine import program
from lab.state import PROJECT

VARIABLE = "MT5CRS_WINDOWS_PYTHON"
ROOTS = Path("/var/cache/mt5crs-lab")
PYTHON_VERSION = "3.12"
PYTHON = Path("opt/python")
ON_A_HOST = "/opt/mt5crs-wine"
"""Where a lab host has that Python: the default of `gateway_wine_python`."""
PREFIX = Path("opt/prefix")
WINE, WINESERVER = "/usr/lib/wine/wine64", "/usr/lib/wine/wineserver64"
PACKAGES = ("wine64",)
DISPLAY = ("xvfb",)
"""What a gateway's host has beside them, for the terminal's display."""
UNUSED_S = 7 * 24 * 3600.0
"""Roots of other definitions go when they have not been used for so long: another checkout may run on one."""
BOOT_TIMEOUT_S = 300.0
# numpy after 2.0 calls what Wine 10 does not have (crealf) and ends Python; Windows hosts get the locked one.
NUMPY = Requirement(
    "numpy", "2.0.0", None, ("a356364941fb0593bb899a1076b92dfa2029f6f5b8ba88a14fd0984aaf76d0df",)
)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "XDG_RUNTIME_DIR": "/tmp",  # noqa: S108
    "WINEDEBUG": "-all",
    "WINEPREFIX": f"/{PREFIX}",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# $1 root, $2 an empty directory, $3 "kept" or "thrown" for what is written, then FROM TO ro|rw up to "--".
_ENTER = """
set -eu
root=$1 scratch=$2 written=$3
shift 3
if [ "$written" = thrown ]; then
    mount -t tmpfs -o mode=0755 tmpfs "$scratch"
    mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
    mount -t overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/root"
    root=$scratch/root
else
    mount --bind "$root" "$root"
fi
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
    shift 3
done
shift
exec chroot "$root" "$@"
"""
# Imported once, so that no program compiles them again: half of what one takes to start.
_USED = (
    "ctypes.wintypes, hashlib, http.server, importlib.metadata, ipaddress, json, logging, multiprocessing, "
    "pathlib, runpy, secrets, sqlite3, subprocess, urllib.request, venv, zipfile, zmq, msgspec, numpy, "
    "MetaTrader5"
)
_COMPILE = f"PYTHONDONTWRITEBYTECODE= {WINE} /{PYTHON}/python.exe -c 'import {_USED}'"
# The registry reaches the disk when the server ends, some seconds after the last program.
_BOOT = f"{WINE} wineboot --init && {_COMPILE} && {WINESERVER} --wait"


@dataclass(frozen=True)
class Windows:
    """Wine with Python. `shared`: directories of this machine, read-only in the root under the given path;
    `written`: the same, to write in. `variables`: the environment of what runs; nothing comes from this
    process.
    """

    root: Path
    shared: Mapping[Path, str] = field(default_factory=dict)
    written: Mapping[Path, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def argv(self, scratch: Path, *command: str) -> list[str]:
        """Return the command that runs a Windows program; paths are those in the root, `Z:` for Windows.

        `scratch` is an empty directory of this run. Killing what this starts ends all that runs in there.
        """
        places = [(each, "ro") for each in self.shared.items()]
        places += [(each, "rw") for each in self.written.items()]
        return _enter(self.root, scratch, "thrown", places, self.variables, [WINE, *command])

    def python(
        self, *arguments: str, stdin: str = "", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments to its end. LabError if it takes too long."""
        with tempfile.TemporaryDirectory(prefix="mt5crs-wine-") as scratch:
            return _run(
                self.argv(Path(scratch), f"/{PYTHON}/python.exe", "-X", "utf8", *arguments),
                f"Python for Windows ({' '.join(arguments)[:80]})",
                timeout_s,
                stdin,
            )


def archive() -> Path:
    """Return the archive of CPython for Windows. LabError says how to get one."""
    named = os.environ.get(VARIABLE)
    beside = sorted((PROJECT.parent / "shared/windows-python").glob("cpython-*-windows-x86_64.zip"))
    if not named and beside:
        return beside[-1]
    path = Path(named or "")
    if named and path.is_file() and zipfile.is_zipfile(path):
        return path
    raise LabError(
        (f"{VARIABLE}={named} is no archive" if named else "there is no Python for Windows on this machine")
        + f": download the official package `python` {PYTHON_VERSION} from nuget.org (a .nupkg, which is a "
        f"zip) and set {VARIABLE} to its path"
    )


def open_windows(mirror: str | None = None) -> Windows:
    """Return Wine with Python, made first if it is not in the cache (a minute on two idle cores, 1.9 GB).

    LabError: this machine cannot have it, with the reason and the remedy.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise LabError("Windows programs need Linux on x86-64 here: run this on such a machine")
    if os.geteuid() != 0:
        raise LabError("Windows programs run in mount namespaces here, which needs root: run this as root")
    source = archive()
    try:
        requirements = _requirements()
    except (WheelError, MissingProgramError) as error:
        raise LabError(str(error)) from None
    root = ROOTS / f"wine-{_digest(source, requirements)}"
    ROOTS.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (ROOTS / "wine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            _forget_older()
            with tempfile.TemporaryDirectory(dir=ROOTS, prefix="wine-making-") as scratch:
                made = Path(scratch) / "root"
                _make(made, source, requirements, mirror or os.environ.get("LAB_DEBIAN_MIRROR"))
                made.rename(root)
        os.utime(root)
    return Windows(root)


def of_a_host(windows: Windows) -> Extra:
    """What a gateway's host has for `gateway_platform: wine`; its prefix the gateway makes itself."""
    return Extra("wine-", PACKAGES + DISPLAY, ((windows.root / PYTHON, ON_A_HOST),))


def _forget_older() -> None:
    for older in ROOTS.glob("wine-*/"):
        if "making" in older.name or time.time() - older.stat().st_mtime > UNUSED_S:
            shutil.rmtree(older)


def _requirements() -> list[Requirement]:
    locked = locked_requirements(PROJECT, WINDOWS)
    return [each for each in locked if each.applies(WINDOWS, PYTHON_VERSION) and each.name != "numpy"] + [
        NUMPY
    ]


def _recipe(mirror: str | None, target: Path) -> list[str]:
    return root_argv("13", PACKAGES, (), target, mirror)


def _digest(source: Path, requirements: Sequence[Requirement]) -> str:
    digest = hashlib.sha256(source.read_bytes())
    parts = [*_recipe(None, Path("root")), _BOOT, _ENTER, repr(sorted(ENVIRONMENT.items()))]
    parts += [requirement.line(requirement.hashes) for requirement in requirements]
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:12]


def _make(root: Path, source: Path, requirements: Sequence[Requirement], mirror: str | None) -> None:
    write_root(_recipe(mirror, root))
    _unpack(source, root / PYTHON)
    with tempfile.TemporaryDirectory(prefix="mt5crs-wine-") as scratch:
        try:
            wheels = collect(requirements, WINDOWS, [PYTHON_VERSION], Path(scratch) / "wheels")
        except WheelError as error:
            raise LabError(str(error)) from None
        for wheel in wheels.values():  # a wheel is a zip of what goes into site-packages
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(root / PYTHON / "Lib/site-packages")
        empty = Path(scratch) / "empty"
        empty.mkdir()
        done = _run(
            _enter(root, empty, "kept", [], {}, ["/bin/sh", "-c", _BOOT]), "wineboot", BOOT_TIMEOUT_S, ""
        )
    if not (root / PREFIX / "system.reg").is_file():
        raise LabError(f"Wine made no prefix: {done.stderr.strip()[-300:]}")


def _unpack(source: Path, target: Path) -> None:
    """Unpack the part of the archive that holds `python.exe` (in a NuGet package, `tools/`)."""
    with zipfile.ZipFile(source) as packed:
        found = sorted((name for name in packed.namelist() if name.endswith("python.exe")), key=len)
        library = f"python{PYTHON_VERSION.replace('.', '')}.dll"
        inside = found[0].removesuffix("python.exe") if found else ""
        if not found or inside + library not in packed.namelist():
            raise LabError(
                f"{source} holds no CPython {PYTHON_VERSION} for Windows (python.exe beside {library}): "
                f"set {VARIABLE} to another archive"
            )
        for name in packed.namelist():
            if name.startswith(inside) and not name.endswith("/"):
                into = target / name.removeprefix(inside)
                into.parent.mkdir(parents=True, exist_ok=True)
                into.write_bytes(packed.read(name))


def _enter(
    root: Path,
    scratch: Path,
    written: str,
    shared: Sequence[tuple[tuple[Path, str], str]],
    variables: Mapping[str, str],
    command: Sequence[str],
) -> list[str]:
    namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    enter = [program("unshare"), *namespaces, "/bin/sh", "-c", _ENTER, "sh", str(root), str(scratch), written]
    places = [part for (source, target), how in shared for part in (str(source), target, how)]
    environment = [f"{name}={value}" for name, value in {**ENVIRONMENT, **variables}.items()]
    return [*enter, *places, "--", "/usr/bin/env", "-i", *environment, *command]


def _run(argv: Sequence[str], what: str, timeout_s: float, stdin: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{what} took over {timeout_s:.0f} s under Wine") from None
