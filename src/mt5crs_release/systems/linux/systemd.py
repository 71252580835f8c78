"""What the tool asks of systemd: ``systemctl``, ``systemd-run`` and ``journalctl``, each bounded in time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mt5crs_release.errors import FailedError
from mt5crs_release.systems.unit_sample import UnitSample

_QUICK_S = 30.0
_NEUTRAL = "IPAccounting"
_NOTED = "/run/systemd/system.control"
"""Where systemd notes properties that are set until the next boot."""
_STARTS_AT_BOOT = ("enabled", "static", "alias", "indirect")
_PROPERTIES = "Id,ActiveState,SubState,Result,NRestarts,ExecMainStatus,MainPID,InvocationID"


class Systemd:
    """The service manager of this host. ``beat`` is called while a long job is waited for."""

    def __init__(self, beat: Callable[[], None] = lambda: None) -> None:
        self.beat = beat

    def reload(self) -> None:
        """Make systemd read the unit files again.

        :raises FailedError: systemd refused
        """
        self._run(["systemctl", "daemon-reload"])

    def enable(self, units: Sequence[str]) -> None:
        """Make ``units`` start at boot; those that already do are left alone.

        :raises FailedError: systemd refused
        """
        missing = self.not_enabled(units)
        if missing:
            self._run(["systemctl", "enable", *missing])

    def not_enabled(self, units: Sequence[str]) -> list[str]:
        """Return those of ``units`` that do not start at boot yet."""
        states = self._call(["systemctl", "is-enabled", *units]).stdout.split()
        known = dict(zip(units, states, strict=True)) if len(states) == len(units) else {}
        return [unit for unit in units if known.get(unit) not in _STARTS_AT_BOOT]

    def disable(self, units: Sequence[str]) -> None:
        """Make ``units`` no longer start at boot; unknown ones are ignored."""
        self._call(["systemctl", "disable", "--no-reload", *units])

    def forget_failures(self, units: Sequence[str]) -> None:
        """Reset failed states, restart counters and start limits; unknown units are ignored."""
        self._call(["systemctl", "reset-failed", *units])

    def stop(self, units: Sequence[str], timeout_s: float) -> None:
        """Stop ``units`` and wait.

        :raises FailedError: one did not stop in time
        """
        answer = self._wait(["systemctl", "stop", *units], timeout_s)
        if answer is None:
            raise FailedError(
                f"{', '.join(units)} did not stop within {timeout_s:g} s",
                remedy=f"see `systemctl status {units[0]}`; stop it by hand, then `mt5crs-release recover`",
            )

    def restart(self, unit: str, timeout_s: float) -> str | None:
        """Restart ``unit`` and wait until its start job has ended; return why it failed, if it did."""
        return self._start_job("restart", unit, timeout_s)

    def start(self, unit: str, timeout_s: float) -> str | None:
        """Start ``unit`` if it is not running; otherwise as :meth:`restart`."""
        return self._start_job("start", unit, timeout_s)

    def reload_unit(self, unit: str, timeout_s: float) -> str | None:
        """Make running ``unit`` read its configuration again; return why it failed, if it did."""
        return self._start_job("reload", unit, timeout_s)

    def tell(self, units: Sequence[str]) -> str | None:
        """Have running ``units`` read their files again (SIGHUP); return why one could not be told.

        Not as a reload: whether the unit has a command for it, and which, is its packager's decision.
        """
        for unit in units:
            answer = self._call(["systemctl", "kill", "--kill-who=main", "--signal=HUP", unit])
            if answer.returncode != 0:
                return f"{unit} could not be told to read its files again: {_first_line(answer.stderr)}"
        return None

    def filter_again(self, unit: str) -> None:
        """Have what runs of ``unit`` filtered by the peers that its files name now (``IPAddressAllow=``).

        A reload alone leaves the kernel's filter as it was. Any property that has to do with it makes systemd
        apply it anew, also one that is set to what it is; what systemd notes of that is removed.

        :raises FailedError: systemd refused
        """
        shown = self._run(["systemctl", "show", "-p", _NEUTRAL, "--value", unit]).stdout.strip()
        self._run(["systemctl", "set-property", "--runtime", unit, f"{_NEUTRAL}={shown or 'no'}"])
        for noted in Path(_NOTED).glob(f"{unit}.d/50-{_NEUTRAL}.conf"):
            noted.unlink()

    def restart_later(self, units: Sequence[str]) -> None:
        """Queue restarts without waiting: what ``units`` depend on may come later.

        :raises FailedError: systemd refused
        """
        self._run(["systemctl", "restart", "--no-block", *units])

    def start_later(self, units: Sequence[str]) -> None:
        """Queue starts without waiting: for use during boot, when waiting would block the boot."""
        self._run(["systemctl", "start", "--no-block", *units])

    def look(self, units: Iterable[str]) -> dict[str, UnitSample]:
        """Return what systemd says of ``units``; an unknown one is ``inactive``.

        :raises FailedError: systemd does not answer
        """
        names = list(units)
        if not names:
            return {}
        answer = self._run(["systemctl", "show", "-p", _PROPERTIES, *names])
        blocks = [_properties(block) for block in answer.stdout.strip().split("\n\n")]
        samples = {name: _sample({}) for name in names}
        for name, block in zip(names, blocks, strict=False):
            samples[name] = _sample(block)
        return samples

    def stamps(self, units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return monotonic times (microseconds) of ``units`` by property; unknown ones are left out.

        :raises FailedError: systemd does not answer
        """
        if not units:
            return {}
        answer = self._run(["systemctl", "show", "-p", ",".join(["Id", *properties]), *units])
        blocks = [_properties(block) for block in answer.stdout.strip().split("\n\n")]
        return {
            block["Id"]: {name: int(block[name]) for name in properties if block.get(name, "").isdigit()}
            for block in blocks
            if "Id" in block
        }

    def last_lines(self, units: Sequence[str], count: int = 20) -> list[str]:
        """Return the last journal lines of ``units``; says so in a line when they cannot be read."""
        selection = [word for unit in units for word in ("-u", unit)]
        command = ["journalctl", "--no-pager", "-q", "-b", "-o", "short-iso", "-n", str(count), *selection]
        try:
            answer = self._call(command)
        except FailedError as error:
            return [f"({error.message})"]
        return answer.stdout.splitlines()[-count:]

    def repeat(self, name: str, command: Sequence[str], every_s: float) -> None:
        """Run ``command`` every ``every_s`` seconds under the transient timer ``name``.

        A timer of that name that runs already is left as it is.

        :raises FailedError: systemd refused
        """
        if self.look([f"{name}.timer"])[f"{name}.timer"].active == "active":
            return
        times = [f"--on-active={every_s:g}s", f"--on-unit-inactive={every_s:g}s"]
        options = ["--quiet", "--collect", "--timer-property=AccuracySec=200ms", f"--unit={name}", *times]
        self._run(["systemd-run", *options, *command])

    def end_repeat(self, name: str) -> None:
        """Stop the transient timer ``name`` if there is one."""
        self._call(["systemctl", "stop", f"{name}.timer"])

    def _start_job(self, verb: str, unit: str, timeout_s: float) -> str | None:
        answer = self._wait(["systemctl", verb, unit], timeout_s)
        if answer is None:
            return f"{unit} did not start within {timeout_s:g} s"
        if answer.returncode != 0:
            return f"systemctl {verb} {unit} failed: {_first_line(answer.stderr)}"
        return None

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        answer = self._call(command)
        if answer.returncode != 0:
            what = " ".join(command[:3])
            raise FailedError(
                f"`{what} …` failed with status {answer.returncode}: {_first_line(answer.stderr)}",
                remedy="see `systemctl status` and `journalctl -b -p err`, then run `mt5crs-release recover`",
            )
        return answer

    def _call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_QUICK_S,
                check=False,
                env=_environment(),
            )
        except FileNotFoundError:
            raise FailedError(
                f"{command[0]} is not installed on this host",
                remedy="the release tool needs systemd; install it or use another host",
            ) from None
        except subprocess.TimeoutExpired:
            raise FailedError(
                f"`{' '.join(command[:2])}` did not answer within {_QUICK_S:g} s",
                remedy="systemd is overloaded or stuck: see `systemctl list-jobs`, then repeat the command",
            ) from None

    def _wait(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str] | None:
        """Run ``command`` with heartbeats; ``None`` when it took longer than ``timeout_s``."""
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
        ) as process:
            end = time.monotonic() + timeout_s
            while True:
                try:
                    _, stderr = process.communicate(timeout=min(1.0, max(0.0, end - time.monotonic())))
                except subprocess.TimeoutExpired:
                    self.beat()
                    if time.monotonic() >= end:
                        process.kill()
                        return None
                else:
                    return subprocess.CompletedProcess(command, process.returncode, "", stderr)


def _environment() -> Mapping[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}


def _properties(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _sample(properties: Mapping[str, str]) -> UnitSample:
    def number(name: str) -> int:
        text = properties.get(name, "0")
        return int(text) if text.isdigit() else 0

    return UnitSample(
        active=properties.get("ActiveState", "inactive"),
        result=properties.get("Result", "success"),
        restarts=number("NRestarts"),
        exit_status=number("ExecMainStatus"),
        invocation=properties.get("InvocationID", ""),
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no message"
