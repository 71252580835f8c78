"""Whether a prefix may be used: only while the unit that holds Wine's server for it runs.

Whoever starts the first program in a prefix gets its server, and ends all programs in it with itself.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

NAME = "in-use"


def hold(prefix: Path) -> int:
    """Tell others that the prefix may be used, until this process ends or the descriptor is closed."""
    descriptor = os.open(prefix / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # who looks has it for a moment
    return descriptor


def is_held(prefix: Path) -> bool:
    """Whether somebody holds the prefix. Raises OSError when that cannot be looked at."""
    try:
        descriptor = os.open(prefix / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class Tied:
    """Ends a program of the prefix as soon as nobody holds the prefix any more.

    Without Wine's server it would live on until it needs it next: in the middle of an order.
    """

    def __init__(self, prefix: Path) -> None:
        """Nothing is ended before `tie`."""
        self._prefix = prefix
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self._waits = False

    def tie(self, end: Callable[[], None]) -> None:
        """Call `end`, from another thread, when the prefix is let go of; who was tied before is no more."""
        with self._lock:
            self._end = end
            if not self._waits:
                self._waits = True
                threading.Thread(target=self._wait, name="prefix", daemon=True).start()

    def _wait(self) -> None:
        descriptor = os.open(self._prefix / NAME, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with self._lock:
                self._waits = False
                end, self._end = self._end, None
        finally:
            os.close(descriptor)
        if end is not None:
            end()
