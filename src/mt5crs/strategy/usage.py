"""What this process takes of its host, as Linux accounts for it: its control group, and /proc/self."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections import deque
from pathlib import Path

from mt5crs.strategy.limits import CPU_WINDOW_S, Use


class Usage:
    """Looks at figures that the kernel keeps. What a host does not keep is not known, and breaks no limit."""

    def __init__(
        self,
        memory_percent: int,
        threads: int,
        *,
        groups: Path = Path("/sys/fs/cgroup"),
        process: Path = Path("/proc/self"),
    ) -> None:
        """memory_percent, threads: what it may take, where no control group says so."""
        self._group = _own_group(groups, process)
        self._process = process
        self._memory_most = self._number("memory.high") or _of_the_host(process.parent, memory_percent)
        self._threads_most = self._number("pids.max") or threads
        self._refused_before = self._field("pids.events", "max") or 0
        self._periods: deque[tuple[float, int, int]] = deque()

    def memory(self) -> Use:
        """Memory alone: quickly read, and soon used up."""
        return Use(memory=self._own_memory(), memory_most=self._memory_most)

    def all(self) -> Use:
        """Everything but the callback. Meant to be called about once a second."""
        refused = self._field("pids.events", "max")
        files, most = self._files()
        return Use(
            memory=self._own_memory(),
            memory_most=self._memory_most,
            threads=self._threads(),
            threads_refused=None if refused is None else refused - self._refused_before,
            threads_most=self._threads_most,
            files=files,
            files_most=most,
            cpu_held_back=self._held_back(time.monotonic()),
        )

    def _own_memory(self) -> int | None:
        try:
            _, resident, shared, *_ = (self._process / "statm").read_text().split()
        except (OSError, ValueError):
            return None
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")

    def _threads(self) -> int | None:
        try:
            return sum(1 for _ in os.scandir(self._process / "task"))
        except OSError:
            return None

    def _files(self) -> tuple[int | None, int | None]:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        try:
            return sum(1 for _ in os.scandir(self._process / "fd")), most
        except OSError as error:
            # None is left to look with.
            return (most if error.errno == errno.EMFILE else None), most

    def _held_back(self, now: float) -> float | None:
        periods, held = self._field("cpu.stat", "nr_periods"), self._field("cpu.stat", "nr_throttled")
        if periods is None or held is None:
            return None
        self._periods.append((now, periods, held))
        while len(self._periods) > 1 and now - self._periods[1][0] >= CPU_WINDOW_S:
            self._periods.popleft()
        began, periods_then, held_then = self._periods[0]
        if now - began < CPU_WINDOW_S:
            return None
        return (held - held_then) / max(1, periods - periods_then)

    def _number(self, name: str) -> int | None:
        text = self._read(name).strip()
        return int(text) if text.isdigit() else None

    def _field(self, name: str, key: str) -> int | None:
        for line in self._read(name).splitlines():
            word, _, value = line.partition(" ")
            if word == key and value.isdigit():
                return int(value)
        return None

    def _read(self, name: str) -> str:
        if self._group is None:
            return ""
        try:
            return (self._group / name).read_text()
        except OSError:
            return ""


def _of_the_host(system: Path, percent: int) -> int | None:
    """Nine tenths of so much of the host's memory, as the unit has it, in bytes."""
    try:
        lines = (system / "meminfo").read_text().splitlines()
    except OSError:
        return None
    total = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)
    return None if total is None else total * percent // 100 * 9 // 10


def _own_group(groups: Path, process: Path) -> Path | None:
    """The control group (version 2) of the process, unless it is the root, which has no limits."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/") and line != "0::/":
            return groups / line.removeprefix("0::/")
    return None
