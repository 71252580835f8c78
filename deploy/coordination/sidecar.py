"""A process beside a deployer, for what must go on whatever the deployer is doing, and end when it ends.

`Sidecar` is the deployer's side; the process reads with `Lines`. They speak JSON objects, one a line.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.fleet.vault_password import PROJECT

_FIRST_S = 60.0
"""The first message is sent as soon as the process is started."""


class Sidecar:
    """A running `python -m <module>`, which outlives a killed deployer by a moment."""

    def __init__(self, module: str, first: Mapping[str, Any]) -> None:
        """Start it and send it its first message."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.tell(first)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message; nothing happens when the process has ended, `said` tells why."""
        assert self._process.stdin is not None  # noqa: S101 -- a pipe
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass

    def said(self) -> str:
        """A line that the process has printed since the last look; empty when there is none."""
        assert self._process.stdout is not None  # noqa: S101 -- a pipe
        ready, _, _ = select.select([self._process.stdout], [], [], 0)
        return self._process.stdout.readline().strip() if ready else ""

    def end(self, timeout_s: float) -> None:
        """Ask the process to end, wait for it, and kill it if it takes longer than `timeout_s`."""
        self.tell({"end": True})
        try:
            self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()


def begun() -> tuple[Lines, int, dict[str, Any]]:
    """For the process: what the deployer says, its process id, and its first message.

    What stops the deployer (Ctrl-C) must not stop this process too; it ends when its input does. SystemExit
    when the deployer is gone already.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deployer, lines = os.getppid(), Lines(sys.stdin.fileno())
    first = lines.next(_FIRST_S)
    if not first:
        raise SystemExit(1)
    return lines, deployer, first


def is_stopped(process: int, proc: Path = Path("/proc")) -> bool:
    """Tell whether a process is stopped (SIGSTOP, Ctrl-Z); False where the system does not say (no /proc)."""
    try:
        # The name before the state may itself hold spaces and parentheses: proc(5).
        return (proc / str(process) / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


class Lines:
    """JSON objects from a pipe, with a time-out: `{}` when none came in time, None when it is closed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.rest = b""

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next object; waits for it as long as `timeout_s`."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.descriptor], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return {}
            read = os.read(self.descriptor, 65536)
            if not read:
                return None
            self.rest += read
        line, _, self.rest = self.rest.partition(b"\n")
        found = json.loads(line)
        return found if isinstance(found, dict) else {}
