"""Everything the release tool does differently on Windows: paths, rights, pointer, services, timer, lock.

Three layers. :class:`Kernel` is the only place that calls Windows itself (ctypes, msvcrt, a child process); a
modelled host replaces :data:`kernel` and nothing else. The functions below it decide and say what to do.
:class:`Services` gives the rest of the tool the same answers that ``systemd.Systemd`` gives on Linux.

Sources: Microsoft's documentation of ``MoveFileExW`` (replace and write-through), ``icacls`` (``/setowner``,
``/grant:r``, ``/inheritance:r``, ``/save``), ``sc.exe``, ``schtasks.exe``, and of the SDDL string format.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mt5crs_release.errors import FailedError
from mt5crs_release.gate import UnitSample

ROOT = "C:/ProgramData/mt5crs"
ACCOUNT = "mt5crs"
"""The local account that services run as; the baseline role makes it."""
SYSTEM_SID = "S-1-5-18"
ADMINISTRATORS_SID = "S-1-5-32-544"
TASK_FOLDER = "mt5crs"
WATCH_EVERY_MIN = 1
"""The Task Scheduler repeats a task once a minute at most; on Linux the watchdog looks every 5 s."""

_QUICK_S = 30.0
_POLL_S = 0.2
_NO_SUCH_SERVICE = 1060
_ALREADY_RUNNING = 1056
_NOT_ACTIVE = 1062
_SHARING_VIOLATION = (5, 32, 33)
_RENAME_WAIT_S = 5.0
_LOG_TAIL_BYTES = 64 * 1024
_SDDL_ALIASES = {"SY": SYSTEM_SID, "BA": ADMINISTRATORS_SID}
_ACE = re.compile(r"\(([^)]*)\)")


def _module(name: str) -> Any:
    """Import what only Windows has; untyped, since the type checker runs on other systems."""
    return importlib.import_module(name)


class Kernel:
    """What only Windows can do. Every method is one call without a decision in it."""

    def run(self, command: Sequence[str], timeout_s: float = _QUICK_S) -> subprocess.CompletedProcess[str]:
        """Run a program of Windows and return what it said.

        :raises FailedError: it is missing, or does not answer in time
        """
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise FailedError(
                f"{command[0]} is not on this host",
                remedy="repair Windows: the tool is part of every edition",
            ) from None
        except subprocess.TimeoutExpired:
            raise FailedError(
                f"`{' '.join(command[:2])}` did not answer within {timeout_s:g} s",
                remedy="see the event log (System) and repeat the command",
            ) from None

    def spawn(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a service's program in a process group of its own, its output appended to ``log``."""
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        with log.open("ab") as stream:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=dict(environment),
                creationflags=flags,
            )

    def base_environment(self) -> dict[str, str]:
        """Return what a program needs to run at all; Winsock does not load without SystemRoot."""
        names = "SystemRoot SystemDrive ComSpec PATH PATHEXT TEMP TMP USERPROFILE APPDATA LOCALAPPDATA "
        names += "ProgramData ProgramFiles NUMBER_OF_PROCESSORS WINDIR"
        return {name: os.environ[name] for name in names.split() if name in os.environ}

    def make_runtime(self, target: Path) -> None:
        """Create an empty virtual environment at ``target``."""
        import venv

        venv.EnvBuilder(with_pip=False, symlinks=False).create(target)

    def create_file(self, path: Path, content: bytes) -> None:
        """Create ``path``, on disk when this returns. Its rights are those its directory hands down.

        :raises FileExistsError: when ``path`` exists
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)

    def is_administrator(self) -> bool:
        """Tell whether this process may change the host."""
        ctypes = _module("ctypes")

        return bool(ctypes.windll.shell32.IsUserAnAdmin())

    def boot_clock(self) -> float:
        """Return seconds since boot, suspended time included (``GetTickCount64``)."""
        ctypes = _module("ctypes")

        ticks = ctypes.windll.kernel32.GetTickCount64
        ticks.restype = ctypes.c_ulonglong
        return float(ticks()) / 1000.0

    def boot_id(self) -> str:
        """Return an identifier of this boot: kept in a volatile registry key, which no boot survives."""
        ctypes = _module("ctypes")
        import secrets

        winreg = _module("winreg")
        wintypes = _module("ctypes.wintypes")

        handle = wintypes.HKEY()
        volatile, everything = 1, winreg.KEY_ALL_ACCESS
        code = ctypes.windll.advapi32.RegCreateKeyExW(
            wintypes.HKEY(winreg.HKEY_LOCAL_MACHINE),
            "SOFTWARE\\mt5crs-boot",
            0,
            None,
            volatile,
            everything,
            None,
            ctypes.byref(handle),
            None,
        )
        if code != 0:
            raise FailedError(
                f"the registry key of this boot cannot be opened (error {code})",
                remedy="run the command as Administrator",
            )
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, "SOFTWARE\\mt5crs-boot", 0, everything) as key:
            winreg.CloseKey(handle.value or 0)
            try:
                return str(winreg.QueryValueEx(key, "boot_id")[0])
            except FileNotFoundError:
                value = secrets.token_hex(16)
                winreg.SetValueEx(key, "boot_id", 0, winreg.REG_SZ, value)
                return value

    def replace(self, source: Path, target: Path) -> None:
        """Give ``source`` the name of file ``target`` in one step, on disk when this returns."""
        ctypes = _module("ctypes")

        replace_existing, write_through = 0x1, 0x8
        move = ctypes.windll.kernel32.MoveFileExW
        if not move(str(source), str(target), replace_existing | write_through):
            raise ctypes.WinError()

    def rename_directory(self, source: Path, target: Path) -> None:
        """Give a directory another name, on disk when this returns."""
        ctypes = _module("ctypes")

        write_through = 0x8
        if not ctypes.windll.kernel32.MoveFileExW(str(source), str(target), write_through):
            raise ctypes.WinError()

    def junction(self, link: Path, target: Path) -> None:
        """Make directory ``link`` show what is in ``target``; junctions need no privilege."""
        _winapi = _module("_winapi")

        _winapi.CreateJunction(str(target), str(link))

    def try_lock(self, descriptor: int) -> bool:
        """Take the lock of an open file without waiting. Windows drops it when its process ends."""
        msvcrt = _module("msvcrt")

        os.lseek(descriptor, 0x7FFFFFF0, os.SEEK_SET)  # far behind the record, which stays readable
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def flush_volume(self, path: Path) -> None:
        """Put everything written to the volume of ``path`` on disk."""
        ctypes = _module("ctypes")

        kernel32 = ctypes.windll.kernel32
        kernel32.CreateFileW.restype = ctypes.c_void_p
        read_write, share_all, open_existing = 0xC0000000, 0x7, 3
        volume = kernel32.CreateFileW(
            f"\\\\.\\{path.resolve().drive}", read_write, share_all, None, open_existing, 0, None
        )
        if volume == ctypes.c_void_p(-1).value:
            raise ctypes.WinError()
        try:
            if not kernel32.FlushFileBuffers(ctypes.c_void_p(volume)):
                raise ctypes.WinError()
        finally:
            kernel32.CloseHandle(ctypes.c_void_p(volume))

    def account_sid(self, account: str) -> str:
        """Return the security identifier of a local account.

        :raises FailedError: there is no such account
        """
        ctypes = _module("ctypes")
        wintypes = _module("ctypes.wintypes")

        size, domain_size, kind = wintypes.DWORD(0), wintypes.DWORD(0), wintypes.DWORD(0)
        lookup = ctypes.windll.advapi32.LookupAccountNameW
        lookup(None, account, None, ctypes.byref(size), None, ctypes.byref(domain_size), ctypes.byref(kind))
        sid = ctypes.create_string_buffer(max(1, size.value))
        domain = ctypes.create_unicode_buffer(max(1, domain_size.value))
        text = wintypes.LPWSTR()
        if not lookup(
            None, account, sid, ctypes.byref(size), domain, ctypes.byref(domain_size), ctypes.byref(kind)
        ) or not ctypes.windll.advapi32.ConvertSidToStringSidW(sid, ctypes.byref(text)):
            raise _no_account(account)
        value = str(text.value)
        ctypes.windll.kernel32.LocalFree(text)
        return value

    def is_alive(self, pid: int) -> bool:
        """Tell whether process ``pid`` runs."""
        ctypes = _module("ctypes")
        wintypes = _module("ctypes.wintypes")

        kernel32 = ctypes.windll.kernel32
        kernel32.OpenProcess.restype = wintypes.HANDLE
        query, still_active = 0x1000, 259
        handle = kernel32.OpenProcess(query, False, pid)
        if not handle:
            return False
        code = wintypes.DWORD()
        try:
            kernel32.GetExitCodeProcess(wintypes.HANDLE(handle), ctypes.byref(code))
            return bool(code.value == still_active)
        finally:
            kernel32.CloseHandle(wintypes.HANDLE(handle))

    def interrupt(self, child: subprocess.Popen[bytes]) -> None:
        """Ask a child to end in order (Ctrl-Break reaches its process group, not ours)."""
        child.send_signal(_module("signal").CTRL_BREAK_EVENT)

    def serve(self, name: str, body: Callable[[Callable[[], bool]], int]) -> int:
        """Run ``body`` as the Windows service ``name``; it is given a function that says when to stop."""
        return int(_module("mt5crs_release.windows_service").dispatch(name, body))


kernel = Kernel()


# --- rights -----------------------------------------------------------------------------------------


def protection(directory: PurePath, account: str) -> list[list[str]]:
    """Return the commands that leave ``directory`` to SYSTEM, Administrators and (to read) ``account``; pure.

    The order is the point: owner, explicit entries, and only then the end of inheritance, so that nobody who
    needs the directory is ever shut out, and nothing secret is in it before the last command has succeeded.
    Well-known identities are named by SID: their names differ by the language of Windows.
    """
    path = str(directory)
    return [
        ["icacls.exe", path, "/setowner", f"*{ADMINISTRATORS_SID}"],
        [
            "icacls.exe",
            path,
            "/grant:r",
            f"*{SYSTEM_SID}:(OI)(CI)F",
            f"*{ADMINISTRATORS_SID}:(OI)(CI)F",
            f"{account}:(OI)(CI)RX",
        ],
        ["icacls.exe", path, "/inheritance:r"],
    ]


def protect(directory: Path, account: str = ACCOUNT) -> None:
    """Leave ``directory``, still empty, to those who may read a secret, and check that it is so.

    :raises FailedError: it is not; nothing secret may be written
    """
    for command in protection(directory, account):
        _succeed(command, f"the rights of {directory} could not be set")
    check_rights(directory, account)


def check_rights(directory: Path, account: str = ACCOUNT) -> None:
    """Check that ``directory`` and everything in it is readable by SYSTEM, Administrators, ``account`` only.

    :raises FailedError: someone else may read something; the message names it
    """
    allowed = {SYSTEM_SID, ADMINISTRATORS_SID, kernel.account_sid(account)}
    listing = directory.with_name(f"{directory.name}.acl")
    try:
        _succeed(
            ["icacls.exe", str(directory), "/save", str(listing), "/t", "/q"],
            f"the rights of {directory} cannot be read",
        )
        found = parse_rights(listing.read_bytes().decode("utf-16"))
    finally:
        with contextlib.suppress(OSError):
            listing.unlink(missing_ok=True)
    problems = [problem for path, sddl in found.items() for problem in rights_problems(path, sddl, allowed)]
    if not found:
        problems = [f"icacls listed nothing below {directory}"]
    if problems:
        raise FailedError(
            f"others could read secrets: {'; '.join(problems[:3])}",
            remedy=f"see `icacls {directory}`; remove what grants those rights, then repeat",
        )


def parse_rights(saved: str) -> dict[str, str]:
    """Return SDDL text by path from what ``icacls /save`` wrote: alternating lines of path and SDDL."""
    lines = [line for line in saved.lstrip("\ufeff").splitlines() if line.strip()]
    return dict(zip(lines[::2], lines[1::2], strict=True))


def rights_problems(path: str, sddl: str, allowed: set[str]) -> Iterator[str]:
    """Yield what grants rights on ``path`` to someone who is not in ``allowed`` (SIDs); pure."""
    _, _, dacl = sddl.partition("D:")
    if not dacl or "NO_ACCESS_CONTROL" in dacl:
        yield f"{path} has no list of rights, so everyone may read it"
        return
    for entry in _ACE.findall(dacl.partition("S:")[0]):
        fields = entry.split(";")
        if len(fields) < 6:
            yield f"{path} has an entry that cannot be read ({entry})"
            continue
        kind, sid = fields[0], _SDDL_ALIASES.get(fields[5], fields[5])
        if kind not in ("D", "OD", "XD") and sid not in allowed:
            yield f"{path} grants rights to {sid}"


def _succeed(command: Sequence[str], failure: str) -> None:
    answer = kernel.run(command)
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise FailedError(
            f"{failure}: {said[0] if said else f'exit status {answer.returncode}'}",
            remedy=f"run the baseline part of the deployment, which makes the account {ACCOUNT}, then repeat",
        )


def _no_account(account: str) -> FailedError:
    return FailedError(
        f"the account {account} does not exist on this host",
        remedy="run the baseline part of the deployment: it makes the account",
    )


# --- files ------------------------------------------------------------------------------------------


def replace_durably(source: Path, target: Path) -> None:
    """Replace file ``target`` by ``source``; waits for a virus scanner that has it open.

    :raises OSError: somebody keeps it open
    """
    _patiently(lambda: kernel.replace(source, target))


def publish_durably(source: Path, target: Path) -> None:
    """Give directory ``source`` its final name; waits as :func:`replace_durably` does."""
    _patiently(lambda: kernel.rename_directory(source, target))


def _patiently(action: Callable[[], None]) -> None:
    end = time.monotonic() + _RENAME_WAIT_S
    while True:
        try:
            return action()
        except OSError as error:
            if getattr(error, "winerror", None) not in _SHARING_VIOLATION or time.monotonic() >= end:
                raise
            time.sleep(_POLL_S)


# --- services ---------------------------------------------------------------------------------------


def service_of(unit: str) -> str:
    """Return the name of the Windows service or task behind ``unit`` (``mt5crs-gateway.service``)."""
    return unit.rpartition(".")[0] or unit


def launched_by(state: Path, name: str) -> Path:
    """Return the launcher's record for service ``name`` (``mt5crs-gateway``) below the state directory."""
    return state / name.removeprefix("mt5crs-") / "launch.json"


class Services:
    """The services of this host, with the answers that ``Systemd`` gives on Linux.

    A service is started by the launcher (``mt5crs-release run``), as a Windows service or as a logon task;
    its record says what runs. Which of the two it is, Windows knows: there is such a service, or not.
    """

    def __init__(self, root: Path, beat: Callable[[], None] = lambda: None) -> None:
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
                kernel.run(["sc.exe", "config", name, "start=", "demand"])
            else:
                kernel.run(["schtasks.exe", "/Change", "/TN", f"\\{TASK_FOLDER}\\{name}", "/DISABLE"])

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
        answer = kernel.run(command)
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

    def start_later(self, units: Sequence[str]) -> None:
        """Nothing to do: at boot Windows starts services itself, and tasks at logon."""

    def look(self, units: Iterable[str]) -> dict[str, UnitSample]:
        """Return what is known of ``units``: the launcher's record, believed while the launcher lives."""
        return {unit: self._sample(service_of(unit)) for unit in units}

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
        kernel.run(["schtasks.exe", "/Delete", "/TN", f"\\{TASK_FOLDER}\\{name}", "/F"])

    def _stop(self, name: str, timeout_s: float) -> None:
        if not self._alive(name):
            return
        service = self._is_service(name)
        if service:
            answer = kernel.run(["sc.exe", "stop", name])
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
        return isinstance(pid, int) and kernel.is_alive(pid)

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
        return kernel.run(["sc.exe", "query", name]).returncode != _NO_SUCH_SERVICE

    def _is_task(self, unit: str) -> bool:
        task = f"\\{TASK_FOLDER}\\{service_of(unit)}"
        return kernel.run(["schtasks.exe", "/Query", "/TN", task]).returncode == 0

    def _run(self, command: Sequence[str]) -> None:
        answer = kernel.run(command)
        if answer.returncode != 0:
            said = (answer.stderr or answer.stdout).strip().splitlines()
            raise FailedError(
                f"`{' '.join(command[:3])}` failed: {said[-1] if said else answer.returncode}",
                remedy="run the baseline and gateway parts of the deployment again: they register it",
            )
