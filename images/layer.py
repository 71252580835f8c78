"""A directory as a layer of an image: the same tree gives the same bytes, wherever it is made and when."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

TIME = 315532800
"""Of every file, 1 January 1980: a layer whose content is the same is the same layer in the next release."""
_LEVEL = 6


@dataclass(frozen=True)
class Layer:
    """A layer in a file: its size, and the digests (SHA-256) of the compressed and of the plain tar."""

    path: Path
    digest: str
    plain: str
    size: int


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Hashing:
    """Passes on what is written, and hashes it."""

    def __init__(self, target: _Writable) -> None:
        self._target = target
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """As a file does."""
        self._hash.update(data)
        return self._target.write(data)

    def flush(self) -> None:
        """Nothing waits here."""

    @property
    def digest(self) -> str:
        """SHA-256 of what was written, hexadecimal."""
        return self._hash.hexdigest()


def entries(root: Path) -> list[str]:
    """Return every path below `root`, relative, parents first, sorted."""
    found = []
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            found.append(os.path.relpath(os.path.join(directory, name), root))  # noqa: PTH118 - thousands
    return sorted(found, key=lambda name: name.split("/"))


def write_layer(root: Path, names: Iterable[str], owner: Callable[[str], int], target: Path) -> Layer:
    """Write `names` (relative to `root`) as a gzipped tar.

    owner: the id of user and group of each name. What is neither file, directory nor link is left out:
    devices are the container runtime's. OSError when the disk is full.
    """
    with target.open("wb") as raw:
        compressed = _Hashing(raw)
        with gzip.GzipFile(
            filename="",
            mode="wb",
            fileobj=compressed,
            mtime=0,
            compresslevel=_LEVEL,
        ) as packed:
            plain = _Hashing(packed)
            stream: Any = plain  # a stream is written to, and asked for nothing else
            with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for name in names:
                    _add(archive, root / name, name, owner(name))
    return Layer(target, compressed.digest, plain.digest, target.stat().st_size)


def _add(archive: tarfile.TarFile, path: Path, name: str, owner: int) -> None:
    found = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.uid, entry.gid = TIME, owner, owner
    entry.mode = stat.S_IMODE(found.st_mode) & ~0o6000  # nothing in an image changes who it runs as
    if stat.S_ISLNK(found.st_mode):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        archive.addfile(entry)
    elif stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif stat.S_ISREG(found.st_mode):
        entry.size = found.st_size
        with path.open("rb") as file:
            archive.addfile(entry, file)


def largest(root: Path, names: Iterable[str], count: int = 10) -> list[tuple[int, str]]:
    """Return the largest files of `names` as (bytes, name), largest first."""
    sizes = [
        (found.st_size, name) for name in names if stat.S_ISREG((found := (root / name).lstat()).st_mode)
    ]
    return sorted(sizes, key=lambda entry: (-entry[0], entry[1]))[:count]
