"""The gateway's end of a terminal process: started, listened to, killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Protocol

MODULE = "mt5crs.broker.terminal"
_SERVICE_MANAGER = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
)
_CHUNK = 4096
_PAUSE_S = 0.05


class Child(Protocol):
    """A process with a pipe each way. `kill` may be called by any thread."""

    answers: int
    """Descriptor to read from."""
    questions: int
    """Descriptor to write to."""

    def kill(self) -> None:
        """End it at once, whatever it is doing."""

    def ended(self, timeout_s: float) -> str:
        """How it ended; empty if it has not within that time."""

    def said(self) -> str:
        """The end of what it wrote to standard error."""

    def close(self) -> None:
        """Close the pipes."""


def environment(secret: Iterable[str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the process may know: neither the gateway's settings nor its service manager.

    secret: names of the settings. A program that the package starts inherits all of this.
    """
    hidden = {*secret, *_SERVICE_MANAGER}
    return {name: value for name, value in environ.items() if name not in hidden}


def command(module: str) -> list[str]:
    """What runs a module as a child of this process, by the same interpreter."""
    return [sys.executable, "-m", module, str(os.getpid())]


class Process:
    """A terminal process. Ends when this process does."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it (`command`, or `Wine.command`); does not wait until it answers. Raises OSError."""
        suspended = 0
        if sys.platform == "win32":
            from mt5crs_release.systems.windows import job as windows_job

            suspended = windows_job.CREATE_SUSPENDED
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(environ),
            creationflags=suspended,
        )
        if sys.platform == "win32":
            try:
                windows_job.tie(self._process)
            except OSError:
                self._process.kill()
                raise
        self.pid = self._process.pid
        questions, answers, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        if questions is None or answers is None or stderr is None:
            raise OSError("the terminal process was started without its pipes")  # never: they were asked for
        self.questions, self.answers = questions.fileno(), answers.fileno()
        self._said: deque[bytes] = deque(maxlen=2)
        self._ear = threading.Thread(target=self._listen, args=(stderr,), name="terminal-stderr", daemon=True)
        self._ear.start()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def ended(self, timeout_s: float) -> str:
        """How it ended; empty if it has not within that time."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return ""
        return f"signal {-status}" if status < 0 else f"status {status}"

    def said(self) -> str:
        """The end of what it wrote to standard error. Complete once it has ended."""
        self._ear.join(0.2)
        return b"".join(self._said).decode(errors="replace").strip()[-_CHUNK // 2 :]

    def close(self) -> None:
        """Close the pipes."""
        for each in (self._process.stdin, self._process.stdout):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.close()

    def _listen(self, stderr: IO[bytes]) -> None:
        """Keep the end of what is said, at a pace at which no flood costs anything."""
        with stderr, contextlib.suppress(OSError):
            while data := os.read(stderr.fileno(), _CHUNK):
                self._said.append(data)
                time.sleep(_PAUSE_S)
