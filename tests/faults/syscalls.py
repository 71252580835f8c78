"""Counting and hitting the system calls by which a program changes anything, with strace."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MUTATING = (
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
    *("symlink", "symlinkat", "link", "linkat", "truncate", "ftruncate"),
    *("chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat"),
    *("fsync", "fdatasync", "syncfs", "write", "pwrite64", "flock"),
    *("vfork", "fork", "clone", "clone3", "wait4"),
)
"""Everything that changes files, starts a program that does (vfork …) or has just seen one end (wait4)."""

FAILING = {
    "ENOSPC": ("rename", "mkdir", "symlink", "write", "pwrite64"),
    "EIO": ("fsync", "write", "rename", "unlink", "fchmod", "symlink"),
}
"""Which calls a full or a broken disk makes fail."""


@dataclass(frozen=True)
class Hit:
    """The ``number``-th call of ``name``; ``lasting``: that one and all later ones."""

    name: str
    number: int
    effect: str = "signal=KILL"
    lasting: bool = False

    def strace(self) -> list[str]:
        """Return the command prefix that does it."""
        when = f"{self.number}+" if self.lasting else str(self.number)
        options = ["-e", f"trace={self.name}", "-e", f"inject={self.name}:{self.effect}:when={when}"]
        return ["strace", "-qq", "-o", "/dev/null", *options]

    def __str__(self) -> str:
        return f"{self.effect.rpartition('=')[2]}@{self.name}#{self.number}{'+' if self.lasting else ''}"


def count(command: Sequence[str], log: Path, environment: dict[str, str], text: str) -> Counter[str]:
    """Run ``command`` once, unharmed; return how often it made each of the MUTATING calls."""
    prefix = ["strace", "-qq", "-o", str(log), "-e", f"trace={','.join('?' + name for name in MUTATING)}"]
    subprocess.run(
        [*prefix, *command],
        env=environment,
        input=text,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Counter(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))


def choose(hits: Sequence[Hit], limit: int) -> list[Hit]:
    """Return about ``limit`` of ``hits`` (0: all), evenly spread, with every system call represented."""
    if limit <= 0 or len(hits) <= limit:
        return list(hits)
    chosen = {hits[int(i * len(hits) / limit)] for i in range(limit)}
    for name in {hit.name for hit in hits} - {hit.name for hit in chosen}:
        chosen.add(next(hit for hit in hits if hit.name == name))
    return [hit for hit in hits if hit in chosen]
