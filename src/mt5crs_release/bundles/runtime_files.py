"""What the files of a runtime are: recorded when it is built, compared before anything is made to run from it
and whenever somebody asks. Seen is what was done to them since, not what was wrong in the bundle.

Size, mode and times of a file tell at once that nothing was done to it (no program can set `ctime`; root can
set the clock, or write past the file system). Only where they differ the content is read. That keeps the
comparison to some milliseconds. What looks at leisure (`intact.py`) reads every byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mt5crs_release.storage import store
from mt5crs_release.storage.paths import COMPLETE

RECORD = ".files"
_SHOWN = 5
_CHUNK = 1 << 20
_GONE = "is not on this host any more"
_BUILT_FOR = re.compile(r"-cp(\d)(\d+)$")
_PROGRAM = re.compile(r"python(\d+\.\d+)$")


def record(runtime: Path) -> str:
    """Write down what a runtime consists of, last before its marker; return the record's digest."""
    found = {name: [_content(path), *_facts(path)] for name, path in _walk(str(runtime))}
    text = json.dumps(found).encode()
    store.write_new(runtime / RECORD, text, 0o644)
    return hashlib.sha256(text).hexdigest()


def problems(runtime: Path, what: str = "runtime") -> list[str]:
    """Why nothing may be started from a runtime: its Python is gone, or it is not what was built.

    :raises PermissionError: whoever asks may not read it, so whether it differs is not known
    """
    return [*python_gone(runtime), *changes(runtime, what)]


def python_gone(runtime: Path) -> list[str]:
    """That a runtime's programs cannot start again: an upgrade put another Python in the place of theirs.

    What runs goes on until it is restarted. Told by the name of the program that the runtime links to; where
    that has no version in it nothing is claimed.
    """
    built_for, link = _BUILT_FOR.search(runtime.name), runtime / "bin/python"
    if built_for is None or not link.is_symlink():
        return []
    version = ".".join(built_for.groups())
    try:
        program = os.path.realpath(link, strict=True)
    except OSError:
        return [f"its Python {version} {_GONE}"]
    named = _PROGRAM.search(program)
    if named is None or named[1] == version:
        return []
    return [f"its Python {version} {_GONE} (Python {named[1]} is)"]


def is_gone(problem: str) -> bool:
    """Whether a problem is that a Python is gone, and nobody's change."""
    return _GONE in problem


def changes(runtime: Path, what: str = "runtime", *, read_all: bool = False) -> list[str]:
    """How a runtime differs from its record: the first few, and how many more; empty when it does not.

    A runtime whose marker names no record was built by an older tool, and is not judged. What a bundle brings
    besides code is kept and watched in the same way; ``what`` is the word for it.
    ``read_all``: read every byte, also where no time tells of a change.

    :raises PermissionError: whoever asks may not read it, so whether it differs is not known
    """
    try:
        digest = json.loads((runtime / COMPLETE).read_bytes()).get("files")
        if digest is None:
            return []
        text = (runtime / RECORD).read_bytes()
        if hashlib.sha256(text).hexdigest() != digest:
            return [f"the record of its {what} was changed"]
        known: dict[str, list[Any]] = json.loads(text)
        found = list(_compared(runtime, known, what, read_all=read_all))
    except PermissionError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        return [f"its {what} or the record of it cannot be read ({type(error).__name__})"]
    if len(found) > _SHOWN:
        found[_SHOWN:] = [f"{len(found) - _SHOWN} more files of its {what}"]
    return found


def judged(runtime: Path) -> bool:
    """Whether there is a record to judge a runtime by; one of an older tool has none.

    :raises OSError, ValueError: its marker cannot be read
    """
    return json.loads((runtime / COMPLETE).read_bytes()).get("files") is not None


def _compared(runtime: Path, known: dict[str, list[Any]], what: str, *, read_all: bool) -> Iterator[str]:
    there = dict(_walk(str(runtime)))
    for name, wanted in known.items():
        path = there.pop(name, None)
        if path is None:
            yield f"{name} of its {what} is missing"
        elif not _same(path, wanted, read_all=read_all):
            yield f"{name} of its {what} was changed"
    for name in sorted(there):
        yield f"{name} was added to its {what}"


def _same(path: str, wanted: list[Any], *, read_all: bool) -> bool:
    content, *facts = wanted
    now = _facts(path)
    if not read_all and now == facts and not stat.S_ISLNK(now[0]):
        return True
    return bool(now[0] == facts[0]) and bool(_content(path) == content)


def _walk(directory: str, inside: str = "") -> Iterator[tuple[str, str]]:
    """Files and links: name with slashes, path; no link is followed. Strings, as there are thousands."""
    with os.scandir(directory) as entries:
        for entry in entries:
            name = inside + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, name + "/")
            elif name not in (COMPLETE, RECORD):
                yield name, entry.path


def _facts(path: str) -> list[int]:
    """Mode, size and times; the times of a link tell nothing that its target does not."""
    told = os.lstat(path)
    if stat.S_ISLNK(told.st_mode):
        return [told.st_mode, -1, 0, 0]
    return [told.st_mode, told.st_size, told.st_mtime_ns, told.st_ctime_ns]


def _content(path: str) -> str:
    file = Path(path)
    if file.is_symlink():
        return str(file.readlink())
    digest = hashlib.sha256()
    with file.open("rb") as opened:  # data of a strategy may be larger than memory
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
