"""What a strategy may take of its host, and what is said when it takes more: decided from figures alone."""

from __future__ import annotations

import errno
from typing import NamedTuple

NAMES = ("memory", "cpu", "threads", "files", "callback", "process", "network", "write")
"""Labels of the figure. The last three are acts that are refused; one that is let pass stops."""
NEAR = 0.95
"""Of where the kernel begins to hold back memory: beyond it a process crawls, and is none that trades."""
CPU_WINDOW_S, CPU_SHARE = 60.0, 0.5
"""Held back in so much of so long a time, it does not get what it needs."""


_REMEDIES = {
    "memory": "find what it keeps or takes at once, or raise strategy_memory_percent",
    "cpu": "compute less or less often, or raise strategy_cpu_percent",
    "threads": "have its libraries start fewer, or raise strategy_threads",
    "files": "find what it does not close, or raise strategy_open_files",
    "callback": "find what it waits for or computes, or raise strategy_callback_limit_s",
}


class Broken(NamedTuple):
    """A limit that was broken."""

    limit: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}"


class Use(NamedTuple):
    """What the process takes at a moment. `None`: not known, or there is no limit."""

    callback: str = ""
    """The callback that is running; empty between two."""
    callback_s: float = 0.0
    callback_most_s: float | None = None
    memory: int | None = None
    """Bytes of its own, without what the kernel could read from disk again."""
    memory_most: int | None = None
    """Bytes at which the kernel begins to hold it back."""
    threads: int | None = None
    threads_refused: int | None = None
    """How many threads it was refused since it began."""
    threads_most: int | None = None
    files: int | None = None
    files_most: int | None = None
    cpu_held_back: float | None = None
    """Share of the periods of the last CPU_WINDOW_S in which it was held back."""


def broken(use: Use) -> Broken | None:
    """The first limit that is broken, or None."""
    if use.callback and use.callback_most_s is not None and use.callback_s > use.callback_most_s:
        return _broke(
            "callback",
            f"{use.callback} has not returned for {use.callback_s:.1f} s, "
            f"it may take {use.callback_most_s:g} s",
        )
    if use.memory is not None and use.memory_most is not None and use.memory >= use.memory_most * NEAR:
        held, most = use.memory // 2**20, use.memory_most // 2**20
        return _broke("memory", f"it holds {held} MiB of memory, it may have {most} MiB")
    too_many = use.threads is not None and use.threads_most is not None and use.threads >= use.threads_most
    if use.threads_refused or too_many:
        return _broke("threads", f"it wants more threads than the {use.threads_most or 'number'} it may have")
    if use.files is not None and use.files_most is not None and use.files >= use.files_most:
        return _broke("files", f"it has all of its {use.files_most} files open")
    if use.cpu_held_back is not None and use.cpu_held_back >= CPU_SHARE:
        return _broke("cpu", f"for {CPU_WINDOW_S:.0f} s it wanted more CPU than it may have most of the time")
    return None


def broken_by(error: BaseException) -> Broken | None:
    """The limit that an error of the strategy tells of, if it does: what was wanted was not to be had."""
    if isinstance(error, MemoryError):
        return _broke("memory", "there was no memory for what it wanted")
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return _broke("files", f"it has as many files open as it may ({error})")
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _broke("threads", "it wants more threads than it may have")
    return None


def broken_before(ended: str) -> Broken | None:
    """The limit for which the process before this one was killed, if it was.

    ended: systemd's SERVICE_RESULT and EXIT_STATUS of it.
    """
    words = ended.split()
    if "oom-kill" in words:
        return _broke("memory", "the kernel ended it for want of memory")
    if "watchdog" in words or "ALRM" in words:
        return _broke(
            "callback",
            "a callback did not return in time and kept everything else from running, so it was killed",
        )
    return None


def _broke(limit: str, cause: str) -> Broken:
    return Broken(limit, cause, _REMEDIES[limit])
