"""What runs on a Windows host is imported without any module or name that only Unix has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog")
NAMES = {
    "os": ("fork", "pread", "pwrite", "getuid", "geteuid", "chown", "fchmod", "mkfifo", "sync", "sysconf"),
    "signal": ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "pthread_sigmask", "set_wakeup_fd"),
    "socket": ("AF_UNIX", "SO_REUSEPORT", "send_fds", "recv_fds"),
    "time": ("CLOCK_BOOTTIME", "clock_gettime"),
}
# Runs in a process of its own: the interpreter itself has imported some of them by now.
PROGRAM = f"""
import importlib, os, pkgutil, signal, socket, sys, time

import asyncio, subprocess, tempfile, zmq  # Python's and ZeroMQ's own; what they need is theirs

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {MODULES!r}:
            raise ModuleNotFoundError(f"no module named {{name}}: this is as on Windows", name=name)

sys.meta_path.insert(0, Absent())
for name in {MODULES!r}:
    sys.modules.pop(name, None)
for module, names in {NAMES!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.modules))
"""
LINUX_ONLY = {"mt5crs_release.systems.linux.system"}


def modules_of(package: str) -> list[str]:
    """Every module of a package of ours."""
    source = PROJECT / "src" / package.replace(".", "/")
    found = [path.relative_to(PROJECT / "src").with_suffix("") for path in sorted(source.rglob("*.py"))]
    return [".".join(path.parts) for path in found if path.name != "__main__"]


def imported(*names: str) -> subprocess.CompletedProcess[str]:
    """Import these in a Python without what only Unix has."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "packages",
    [("mt5crs_release",), ("mt5crs.gateway", "mt5crs.broker", "mt5crs.protocol", "mt5crs.settings")],
    ids=["release tool", "gateway"],
)
def test_nothing_of_unix_is_needed(packages: tuple[str, ...]) -> None:
    names = [name for package in packages for name in modules_of(package) if name not in LINUX_ONLY]
    assert len(names) > 20
    answer = imported(*names, "mt5crs.gateway.__main__", "mt5crs.__main__", "mt5crs.probes.health")
    assert answer.returncode == 0, answer.stderr


def test_what_unix_has_would_be_noticed() -> None:
    assert "no module named fcntl" in imported("fcntl").stderr
    assert imported("mt5crs_release.errors").returncode == 0
