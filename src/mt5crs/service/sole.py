"""One process at a time in charge of a directory, whoever started it: a lock that its end releases."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_PAUSE_S = 0.02


def _lock(descriptor: int) -> None:
    """Raises OSError when another process has it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # behind the text, which others may read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class HeldError(OSError):
    """Another process is in charge; the text says which, and of what."""


def take(path: Path, patience_s: float) -> int:
    """Hold the lock in this file until this process ends; the descriptor must stay open.

    One that was killed lets go in a moment, which is waited for. Raises HeldError, and OSError when the file
    cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            _lock(descriptor)
        except OSError:
            if time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
                continue
            os.lseek(descriptor, 0, os.SEEK_SET)
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise HeldError(
                f"the process {holder} holds {path}: another gateway with the same STATE_DIR; end that one, "
                "or give this one a STATE_DIR of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor
