"""Starts a service on Windows and looks after it: what systemd does on Linux, and no more than is needed.

Windows knows one unchanging program for a service: ``python mt5crs-release.pyz run SERVICE``. It reads the
pointer ``current`` at every start, so activation is one durable replacement of one small file, and what
Windows has registered never changes. How to run it, it reads from ``units/mt5crs-<service>.service`` of the
generation, here a JSON document (``{current}``, in ``.env`` too, is the directory of the generation):

    {"format": 1, "command": ["{current}/venv/Scripts/python.exe", "-m", "mt5crs.gateway"],
     "environment_file": ".env", "stop_timeout_s": 15, "restart_s": 2, "start_limit": 8, "start_limit_s": 300,
     "keep_down_status": 78}
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mt5crs_release.errors import FailedError
from mt5crs_release.storage import store
from mt5crs_release.storage.journal import timestamp
from mt5crs_release.storage.paths import Host
from mt5crs_release.systems import system
from mt5crs_release.systems.windows.kernel import Kernel
from mt5crs_release.systems.windows.system import Windows

FORMAT = 1
_POLL_S = 0.1
_LOG_MAX_BYTES = 5 * 1024 * 1024
_LOGS_KEPT = 3
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=('([^']*)'|[^\s'\"\\]*)\Z")


@dataclass(frozen=True)
class Description:
    """How a service is run; times in seconds."""

    command: tuple[str, ...]
    environment_file: str
    stop_timeout_s: float
    restart_s: float
    start_limit: int
    """So many starts within ``start_limit_s`` and the launcher gives up."""
    start_limit_s: float
    keep_down_status: int
    """Exit status that says a restart would not help (wrong configuration)."""


def parse_description(text: str) -> Description:
    """Return the description in ``text``.

    :raises FailedError: it is not one
    """
    try:
        document = json.loads(text)
        if document.pop("format") != FORMAT:
            raise ValueError("format")
        command = document.pop("command")
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            raise ValueError("command")
        description = Description(command=tuple(command), **document)
        for field in fields(Description)[2:]:
            if not isinstance(getattr(description, field.name), (int, float)):
                raise ValueError(field.name)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FailedError(
            f"the unit of the generation does not describe how to run it ({type(error).__name__}: {error})",
            remedy="stage the service again from templates/windows/",
        ) from None
    return description


_NOT_BY_HAND = "stage the service again; do not edit .env"


def parse_environment(text: str) -> dict[str, str]:
    """Return the variables of a ``.env`` text: ``KEY=value`` or ``KEY='value'``, comments, empty lines.

    :raises FailedError: a line is neither; the message names its number, never its content
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.match(line)
        if match is None:
            raise FailedError(f"line {number} of .env is no assignment", remedy=_NOT_BY_HAND)
        found[match[1]] = match[3] if match[3] is not None else match[2]
    return found


def run(host: Host, service: str, *, as_task: bool) -> int:
    """Be ``service``, started by the Service Control Manager, or by a logon task; return its exit status.

    :raises OSError: not a task, and not started by the manager either
    """
    here = system.here()
    kernel = here.kernel if isinstance(here, Windows) else Kernel()
    if as_task:
        return launch(kernel, host, service, lambda: False)
    return kernel.serve(f"mt5crs-{service}", lambda should_stop: launch(kernel, host, service, should_stop))


def launch(kernel: Kernel, host: Host, service: str, should_stop: Callable[[], bool]) -> int:
    """Run ``service`` until ``should_stop``; restart its program when it dies.

    :return: 0 when it was stopped, or must not be started again; 1 when it died too often
    :raises FailedError: there is nothing to run
    """
    it = _Run(kernel, host, service)
    try:
        return it.until(should_stop)
    except (FailedError, OSError) as error:
        it.record("failed", exit_status=1, reason=str(error))
        raise


class _Run:
    def __init__(self, kernel: Kernel, host: Host, service: str) -> None:
        self.kernel = kernel
        self.host = host
        self.service = service
        self.paths = host.service(service)
        self.directory = host.base / "state" / service
        self.stop_request = self.directory / "stop"
        self.file = self.directory / "launch.json"
        self.restarts = _restarts_before(self.file)
        self.starts: list[float] = []

    def until(self, should_stop: Callable[[], bool]) -> int:
        with contextlib.suppress(FileNotFoundError):
            self.stop_request.unlink()
        while True:
            self.record("starting")
            current, description, environment = self._read()
            self.starts.append(time.monotonic())
            child = self.kernel.spawn(
                [word.replace("{current}", str(current)) for word in description.command],
                {
                    **self.kernel.base_environment(),
                    **{name: value.replace("{current}", str(current)) for name, value in environment.items()},
                },
                self.directory,
                self._log(),
            )
            self.record("running", child=child.pid, generation=current.name)
            status = self._wait(child, description, should_stop)
            if status is None:
                self.record("stopped")
                return 0
            if status == description.keep_down_status:
                self.record(
                    "failed", exit_status=status, reason="its configuration is wrong: see service.log"
                )
                return 0
            self.restarts += 1
            recent = [start for start in self.starts if start > time.monotonic() - description.start_limit_s]
            if len(recent) >= description.start_limit:
                self.record("failed", exit_status=status, reason="it died too often: see service.log")
                return 1
            self.record("starting", exit_status=status)
            if self._pause(description.restart_s, should_stop):
                self.record("stopped")
                return 0

    def record(self, state: str, **more: object) -> None:
        """Say in ``launch.json`` what is going on."""
        content = {
            "pid": os.getpid(),
            "state": state,
            "restarts": self.restarts,
            "time": timestamp(),
            "exit_status": 0,
            **more,
        }
        temporary = self.file.with_name(f".tmp-launch.{os.getpid()}")
        temporary.write_text(json.dumps(content))
        system.here().replace(temporary, self.file)

    def _read(self) -> tuple[Path, Description, Mapping[str, str]]:
        target = store.read_link(self.paths.current)
        if target is None:
            raise FailedError(
                f"{self.service} has no current generation", remedy="deploy it; nothing was started"
            )
        current = self.paths.base / target
        description = parse_description(
            (current / "units" / f"mt5crs-{self.service}.service").read_text("utf-8")
        )
        try:
            text = (current / description.environment_file).read_text("utf-8")
        except UnicodeDecodeError:
            raise FailedError(".env is not UTF-8", remedy=_NOT_BY_HAND) from None
        return current, description, parse_environment(text)

    def _asked(self, should_stop: Callable[[], bool]) -> bool:
        return should_stop() or self.stop_request.exists()

    def _pause(self, seconds: float, should_stop: Callable[[], bool]) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._asked(should_stop):
                return True
            time.sleep(_POLL_S)
        return False

    def _wait(
        self, child: subprocess.Popen[bytes], description: Description, should_stop: Callable[[], bool]
    ) -> int | None:
        """Return the exit status of a child that ended by itself, ``None`` when it was told to."""
        try:
            while not self._asked(should_stop):
                try:
                    return child.wait(timeout=_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
            self.kernel.interrupt(child)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=description.stop_timeout_s)
            return None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()

    def _log(self) -> Path:
        log = self.directory / "service.log"
        if log.exists() and log.stat().st_size > _LOG_MAX_BYTES:
            for number in range(_LOGS_KEPT, 0, -1):
                older = log.with_name(f"service.{number}.log")
                newer = log.with_name(f"service.{number - 1}.log") if number > 1 else log
                if newer.exists():
                    newer.replace(older)
        return log


def _restarts_before(file: Path) -> int:
    """Return how often it was restarted before this launcher: one more than recorded if the last one died."""
    try:
        record: Any = json.loads(file.read_bytes())
        restarts = int(record["restarts"])
        return restarts + 1 if record["state"] in ("running", "starting") else restarts
    except (OSError, ValueError, KeyError, TypeError):
        return 0
