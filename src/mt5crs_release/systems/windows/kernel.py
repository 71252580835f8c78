"""The only place that calls Windows itself: ctypes, msvcrt, winreg, child processes.

Every method of :class:`Kernel` is one call without a decision in it; a modelled host replaces it and
nothing else. Imported on Windows only.

Sources: Microsoft's documentation of ``MoveFileExW`` (replace and write-through), ``RegCreateKeyExW``
(volatile keys).
"""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mt5crs_release.errors import FailedError

_QUICK_S = 30.0


def _module(name: str) -> Any:
    """Import what only Windows has; untyped, since the type checker runs on other systems."""
    return importlib.import_module(name)


class Kernel:
    """What only Windows can do. Every method is one call without a decision in it."""

    load_stable_abi = "ctypes.WinDLL('python3.dll')"
    """Python that loads the library of the stable ABI, as an extension module does."""

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
        """Start a service's program in a process group of its own, its output appended to ``log``.

        It ends when this process does, however that ends (see :mod:`mt5crs_release.systems.windows.job`).
        """
        job = _module("mt5crs_release.systems.windows.job")
        with log.open("ab") as stream:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=dict(environment),
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | job.CREATE_SUSPENDED,
            )
        try:
            job.tie(child)
        except BaseException:
            child.kill()
            child.wait()
            raise
        return child

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
            raise no_account(account)
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
        return int(_module("mt5crs_release.systems.windows.service").dispatch(name, body))


def no_account(account: str) -> FailedError:
    """Return the error for an account that is not on this host."""
    return FailedError(
        f"the account {account} does not exist on this host",
        remedy="run the baseline part of the deployment: it makes the account",
    )
