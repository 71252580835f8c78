"""A file that arrives in pieces: what has come is kept, and it gets its name only once it is whole.

Who sends it is not trusted: no more than the expected bytes are written, and their SHA-256 is compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.storage import store
from mt5crs_release.systems import system

PART = ".part"
MOST_BYTES = 16 * 1024**3
_RESERVE = 64 * 1024**2
"""Bytes that stay free, so that a bundle never fills the disk of what runs."""
_BLOCK = 1 << 20
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._+!-]{1,200}\.tar\Z")


class WrongContentError(FailedError):
    """All bytes have come, and they are not the expected ones; they are removed."""


class Wanted(NamedTuple):
    """A file by its content; ``name`` is what it is called on a host, empty in the store."""

    sha256: str
    size: int
    name: str = ""


def wanted(document: Any, *, named: bool) -> list[Wanted]:
    """Return the files that a request lists.

    :raises RefusedError: it lists none, or one that cannot be
    """
    entries = document.get("files") if isinstance(document, dict) else None
    found = []
    for entry in entries if isinstance(entries, list) else ():
        want = _wanted(entry) if isinstance(entry, dict) else None
        if want is None or (named and not _NAME.match(want.name)):
            break
        found.append(want)
    if not found or len(found) != len(entries or ()):
        raise RefusedError(
            "the request lists no files, or one with an unsafe name, size or SHA-256",
            remedy='send {"files": [{"sha256": 64 digits, "size": bytes}]}, as the deployment does',
        )
    return found


def _wanted(entry: Mapping[str, Any]) -> Wanted | None:
    digest, size, name = entry.get("sha256"), entry.get("size"), entry.get("name", "")
    if not isinstance(digest, str) or not _SHA256.match(digest) or not isinstance(name, str):
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= MOST_BYTES:
        return None
    return Wanted(digest, size, name)


def digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a regular file; ``None`` when ``path`` is none (a link is not followed)."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        return _digest(stream.fileno())


def open_regular(path: Path) -> int:
    """Open a regular file for reading, never through a link.

    :raises OSError: there is none
    """
    flags = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor


def require_room(directory: Path, more: int) -> None:
    """Check that ``more`` bytes fit below ``directory`` and leave room for what runs.

    :raises FailedError: they do not
    """
    free = shutil.disk_usage(directory).free
    if free < more + _RESERVE:
        raise FailedError(
            f"{directory} has {free // 1000**2} MB free, {(more + _RESERVE) // 1000**2} MB are needed",
            remedy="free disk space (`mt5crs-release prune`, `journalctl --vacuum-size=100M`), then repeat",
        )


class Part:
    """What has come so far of one file; use as a context manager. The caller holds a lock."""

    def __init__(self, directory: Path, want: Wanted) -> None:
        self.path = directory / f"{want.sha256}{PART}"
        self.want = want
        self.held = 0
        """Bytes that are there."""
        self._descriptor = -1

    def __enter__(self) -> Part:
        """Open what is there, or begin anew when it is no file of ours or has too many bytes."""
        flags = os.O_RDWR | os.O_CREAT | _NO_LINK
        if not _usable(self.path, self.want.size):
            _remove(self.path)
        self._descriptor = os.open(self.path, flags, 0o600)
        self.held = os.lseek(self._descriptor, 0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        """Keep what has come, for the next time."""
        os.close(self._descriptor)

    def append(self, block: bytes) -> None:
        """Add what came next.

        :raises WrongContentError: that is more than was announced
        :raises OSError: the disk is full; what was written before stays
        """
        if self.held + len(block) > self.want.size:
            self.forget()
            raise WrongContentError(
                f"more than the {self.want.size} bytes that were announced have come",
                remedy="begin anew; if it comes back, do not use what sends them",
            )
        view = memoryview(block)
        while view:
            written = os.write(self._descriptor, view)
            self.held += written
            view = view[written:]

    def forget(self) -> None:
        """Remove what has come."""
        _remove(self.path)

    def publish(self, target: Path, mode: int = 0o644) -> None:
        """Give the whole file its name, on disk when this returns.

        :raises WrongContentError: it is not the expected one
        """
        found = _digest(self._descriptor)
        if found != self.want.sha256:
            self.forget()
            raise WrongContentError(
                f"what came has the SHA-256 {found[:12]}…, expected was {self.want.sha256[:12]}…",
                remedy="it was damaged or tampered with on the way or where it was kept: look there",
            )
        self.path.chmod(mode)
        os.fsync(self._descriptor)
        system.here().replace(self.path, target)
        store.sync_directory(target.parent)


def _usable(path: Path, size: int) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= size


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while block := os.read(descriptor, _BLOCK):
        digest.update(block)
    return digest.hexdigest()
