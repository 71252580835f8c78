"""One run at a time per service.

The kernel's lock (flock) decides: it is gone exactly when its holder is dead, also after ``kill -9``,
and is never taken from a living process, not even a stopped one. The owner record in the file is for
people, and tells the next run that the last one died in the middle.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import time
from pathlib import Path
from typing import Any

from mt5crs_release.errors import BusyError
from mt5crs_release.storage import store
from mt5crs_release.storage.journal import timestamp
from mt5crs_release.systems import system

_POLL_S = 0.05


def boot_id() -> str:
    """Return the identifier of this boot."""
    return system.here().boot_id()


def boot_clock() -> float:
    """Return seconds since boot including suspended time; no change of the date moves it."""
    return system.here().boot_clock()


class Lock:
    """The lock of one service; use as a context manager."""

    def __init__(self, path: Path, command: str, wait_s: float) -> None:
        self.path = path
        self.command = command
        self.wait_s = wait_s
        self.dead_owner: dict[str, Any] | None = None
        """The record of a holder that died without releasing, if there was one."""
        self._descriptor = -1
        self._record: dict[str, Any] = {}

    def __enter__(self) -> Lock:
        """Take the lock, waiting up to ``wait_s`` seconds.

        :raises BusyError: another run holds it; the message names who
        """
        store.ensure_directory(self.path.parent)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait()
        except BaseException:
            os.close(self._descriptor)
            raise
        self.dead_owner = self._read()
        self._record = {
            "token": secrets.token_hex(16),
            "pid": os.getpid(),
            "boot_id": boot_id(),
            "host": platform.node(),
            "command": self.command,
            "started": timestamp(),
        }
        self.beat("begun")
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back; the empty record says that the run ended in order."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    @property
    def token(self) -> str:
        """The token of this run, also in the journal."""
        return str(self._record["token"])

    def beat(self, phase: str) -> None:
        """Record that the run lives and what it is doing. A full disk does not stop it."""
        self._record |= {"phase": phase, "heartbeat": timestamp()}
        content = json.dumps(self._record).encode()
        with contextlib.suppress(OSError):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, content)
            os.ftruncate(self._descriptor, len(content))

    def _wait(self) -> None:
        end = time.monotonic() + self.wait_s
        while True:
            if system.here().try_lock(self._descriptor):
                return
            if time.monotonic() >= end:
                raise self._busy()
            time.sleep(_POLL_S)

    def _read(self) -> dict[str, Any] | None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        content = os.read(self._descriptor, 4096)
        try:
            record = json.loads(content)
        except ValueError:
            return {} if content else None
        return record if isinstance(record, dict) else {}

    def _busy(self) -> BusyError:
        record = self._read() or {}
        pid = record.get("pid", "unknown")
        holder = (
            f"`{record.get('command', 'unknown')}` (pid {pid}) on {record.get('host', 'unknown')} since "
            f"{record.get('started', 'unknown')}, in phase '{record.get('phase', 'unknown')}', "
            f"last heartbeat {record.get('heartbeat', 'unknown')}"
        )
        remedy = "wait for it and repeat the command"
        if _is_stopped(pid):
            holder += "; its process is stopped"
            remedy = (
                f"let it finish (kill -CONT {pid}) or end it (kill -KILL {pid}); "
                "the next run of mt5crs-release then undoes what it left"
            )
        return BusyError(f"another run holds the lock: {holder}", remedy=remedy, details={"holder": record})


def _is_stopped(pid: object) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in {"T", "t"}


class NoLock(Lock):
    """In place of a lock where nothing is changed and nothing is there yet: a dry run on a fresh host."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), "dry run", 0)

    def __enter__(self) -> NoLock:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def beat(self, phase: str) -> None:
        """Do nothing."""
