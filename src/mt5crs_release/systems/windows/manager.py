"""Services and tasks of Windows, with the answers that `systems.linux.systemd` gives on Linux.

Sources: Microsoft's documentation of ``sc.exe`` and ``schtasks.exe``. Imported on Windows only.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mt5crs_release.errors import FailedError
from mt5crs_release.systems.unit_sample import UnitSample
from mt5crs_release.systems.windows.kernel import Kernel

TASK_FOLDER = "mt5crs"
WATCH_EVERY_MIN = 1
"""The Task Scheduler repeats a task once a minute at most; on Linux the watchdog looks every 5 s."""

_POLL_S = 0.2
_RESTART_TIMEOUT_S = 60.0
_NO_SUCH_SERVICE = 1060
_ALREADY_RUNNING = 1056
_NOT_ACTIVE = 1062
_LOG_TAIL_BYTES = 64 * 1024


def service_of(unit: str) -> str:
    """Return the name of the Windows service or task behind ``unit`` (``mt5crs-gateway.service``)."""
    return unit.rpartition(".")[0] or unit


def launched_by(state: Path, name: str) -> Path:
    """Return the launcher's record for service ``name`` (``mt5crs-gateway``) below the state directory."""
    return state / name.removeprefix("mt5crs-") / "launch.json"


class WindowsServices:
    """The services of this host, with the answers that ``Systemd`` gives on Linux.

    A service is started by the launcher (``mt5crs-release run``), as a Windows service or as a logon task;
    its record says what runs. Which of the two it is, Windows knows: there is such a service, or not.
    """

    def __init__(self, kernel: Kernel, root: Path, beat: Callable[[], None] = lambda: None) -> None:
        self.kernel = kernel
        self.state = root / "state"
        self.beat = beat

    def reload(self) -> None:
        """Nothing to do: the launcher reads the generation at every start."""

    def enable(self, units: Sequence[str]) -> None:
        """Make ``units`` start at boot (delayed), or at logon where they are tasks."""
        for name in map(service_of, units):
            if self._is_service(name):
                self._run(["sc.exe", "config", name, "start=", "delayed-auto"])
            else:
                self._run(["schtasks.exe", "/Change", "/TN", f"\\{TASK_FOLDER}\\{name}", "/ENABLE"])

    def not_enabled(self, units: Sequence[str]) -> list[str]:
        """Return those of ``units`` that Windows does not know at all."""
        return [unit for unit in units if not (self._is_service(service_of(unit)) or self._is_task(unit))]

    def disable(self, units: Sequence[str]) -> None:
        """Make ``units`` no longer start by themselves; unknown ones are ignored."""
        for name in map(service_of, units):
            if self._is_service(name):
                self.kernel.run(["sc.exe", "config", name, "start=", "demand"])
            else:
                self.kernel.run(["schtasks.exe", "/Change", "/TN", f"\\{TASK_FOLDER}\\{name}", "/DISABLE"])

    def forget_failures(self, units: Sequence[str]) -> None:
        """Count restarts from nothing; the record of a service that runs is left alone."""
        for name in map(service_of, units):
            if not self._alive(name):
                launched_by(self.state, name).unlink(missing_ok=True)

    def stop(self, units: Sequence[str], timeout_s: float) -> None:
        """Stop ``units`` and wait.

        :raises FailedError: one did not stop in time
        """
        for name in map(service_of, units):
            self._stop(name, timeout_s)

    def restart(self, unit: str, timeout_s: float) -> str | None:
        """Stop and start ``unit``; return why it does not run, if it does not."""
        self._stop(service_of(unit), timeout_s)
        self.forget_failures([unit])
        return self.start(unit, timeout_s)

    def start(self, unit: str, timeout_s: float) -> str | None:
        """Start ``unit`` unless it runs, and wait until its program has begun or failed."""
        name = service_of(unit)
        if self._alive(name):
            return None
        command = (
            ["sc.exe", "start", name]
            if self._is_service(name)
            else ["schtasks.exe", "/Run", "/TN", f"\\{TASK_FOLDER}\\{name}"]
        )
        answer = self.kernel.run(command)
        if answer.returncode not in (0, _ALREADY_RUNNING):
            said = (answer.stderr or answer.stdout).strip().splitlines()
            return f"{' '.join(command[:3])} failed: {said[-1] if said else answer.returncode}"
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            record = self._record(name)
            if record.get("state") == "failed" or (record.get("state") == "running" and self._alive(name)):
                return None
            self.beat()
            time.sleep(_POLL_S)
        return f"{name} did not start within {timeout_s:g} s"

    def reload_unit(self, unit: str, _timeout_s: float) -> str | None:
        """Windows has no such thing."""
        return f"{unit} cannot be reloaded: Windows services are restarted"

    def tell(self, units: Sequence[str]) -> str | None:
        """Windows has no such thing."""
        return f"{', '.join(units)} cannot be told to read files again: Windows services are restarted"

    def filter_again(self, _unit: str) -> None:
        """Nothing to do: services have no peers of their own here, the firewall has."""

    def restart_later(self, units: Sequence[str]) -> None:
        """Restart ``units``: the launcher does not wait for the health of what it starts.

        :raises FailedError: one did not stop
        """
        for unit in units:
            self.restart(unit, _RESTART_TIMEOUT_S)

    def start_later(self, units: Sequence[str]) -> None:
        """Nothing to do: at boot Windows starts services itself, and tasks at logon."""

    def look(self, units: Iterable[str]) -> dict[str, UnitSample]:
        """Return what is known of ``units``: the launcher's record, believed while the launcher lives."""
        return {unit: self._sample(service_of(unit)) for unit in units}

    def stamps(self, _units: Sequence[str], _properties: Sequence[str]) -> dict[str, dict[str, int]]:
        """Windows keeps no such times: nothing is known of any unit."""
        return {}

    def last_lines(self, units: Sequence[str], count: int = 20) -> list[str]:
        """Return the last lines of the services' own logs; says so in a line when they cannot be read."""
        lines: list[str] = []
        for unit in units:
            log = launched_by(self.state, service_of(unit)).with_name("service.log")
            try:
                with log.open("rb") as stream:
                    stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
                    lines += stream.read().decode(errors="replace").splitlines()
            except OSError as error:
                lines.append(f"({log} cannot be read: {error.strerror})")
        return lines[-count:]

    def repeat(self, name: str, command: Sequence[str], every_s: float) -> None:
        """Run ``command`` every minute as SYSTEM under the task ``name``.

        :raises FailedError: the Task Scheduler refused
        """
        del every_s  # see WATCH_EVERY_MIN
        line = subprocess.list2cmdline(command)
        schedule = ["/SC", "MINUTE", "/MO", str(WATCH_EVERY_MIN), "/RU", "SYSTEM", "/RL", "HIGHEST", "/F"]
        self._run(["schtasks.exe", "/Create", "/TN", f"\\{TASK_FOLDER}\\{name}", "/TR", line, *schedule])

    def end_repeat(self, name: str) -> None:
        """Remove the task ``name`` if there is one."""
        self.kernel.run(["schtasks.exe", "/Delete", "/TN", f"\\{TASK_FOLDER}\\{name}", "/F"])

    def _stop(self, name: str, timeout_s: float) -> None:
        if not self._alive(name):
            return
        service = self._is_service(name)
        if service:
            answer = self.kernel.run(["sc.exe", "stop", name])
            if answer.returncode not in (0, _NOT_ACTIVE):
                raise FailedError(
                    f"sc.exe stop {name} failed with {answer.returncode}",
                    remedy="see the event log (System), stop it by hand, then run `mt5crs-release recover`",
                )
        else:
            launched_by(self.state, name).with_name("stop").write_bytes(b"")
        end = time.monotonic() + timeout_s
        while self._alive(name):
            if time.monotonic() >= end:
                raise FailedError(
                    f"{name} did not stop within {timeout_s:g} s",
                    remedy="end its process in the Task Manager, then run `mt5crs-release recover`",
                )
            self.beat()
            time.sleep(_POLL_S)

    def _record(self, name: str) -> dict[str, object]:
        try:
            record = json.loads(launched_by(self.state, name).read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _alive(self, name: str) -> bool:
        pid = self._record(name).get("pid")
        return isinstance(pid, int) and self.kernel.is_alive(pid)

    def _sample(self, name: str) -> UnitSample:
        record = self._record(name)
        state = str(record.get("state", "stopped"))
        active = {"running": "active", "starting": "activating", "failed": "failed"}.get(state, "inactive")
        if active in ("active", "activating") and not self._alive(name):
            active = "failed"
        restarts, status = record.get("restarts"), record.get("exit_status")
        return UnitSample(
            active=active,
            result="success" if active != "failed" else "exit-code",
            restarts=restarts if isinstance(restarts, int) else 0,
            exit_status=status if isinstance(status, int) else 0,
        )

    def _is_service(self, name: str) -> bool:
        return self.kernel.run(["sc.exe", "query", name]).returncode != _NO_SUCH_SERVICE

    def _is_task(self, unit: str) -> bool:
        task = f"\\{TASK_FOLDER}\\{service_of(unit)}"
        return self.kernel.run(["schtasks.exe", "/Query", "/TN", task]).returncode == 0

    def _run(self, command: Sequence[str]) -> None:
        answer = self.kernel.run(command)
        if answer.returncode != 0:
            said = (answer.stderr or answer.stdout).strip().splitlines()
            raise FailedError(
                f"`{' '.join(command[:3])}` failed: {said[-1] if said else answer.returncode}",
                remedy="run the baseline and gateway parts of the deployment again: they register it",
            )
