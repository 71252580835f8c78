"""Secrets in every version of every file that git has, and in every file of the images."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from deploy.controller.programs import require
from mt5crs.review import text_rules
from mt5crs.review.tree import MAX_BYTES
from pipeline.scans.model import Found, Scan

HISTORY, IMAGES = "secrets in history", "secrets in images"
_WITHIN_S: Final = 300
_GZIP: Final = b"\x1f\x8b"


def scan(name: str, what: str, files: Iterable[tuple[str, str, bytes]]) -> Scan:
    """Look at files: (key, path, content). What is binary has no lines to look at and is not counted."""
    looked, found = 0, dict[str, Found]()
    for key, path, content in files:
        text = _text(content)
        if text is None:
            continue
        looked += 1
        for each in text_rules.secrets(path, text):
            found.setdefault(key, Found(key=key, detail=f"{path}:{each.line} {each.message}"))
    return Scan(name=name, looked_at=looked, what=what, found=list(found.values()))


def history(root: Path) -> Scan:
    """Every version of every file that some branch or tag leads to; a finding's key is git's id of it."""
    shallow = _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true"
    made = scan(HISTORY, "versions of files", _versions(root))
    if not shallow:
        return made
    why = "this clone has not the whole history; `git fetch --unshallow` brings it"
    return Scan(name=HISTORY, looked_at=made.looked_at, what=made.what, found=made.found, not_checked=why)


def images(archives: Iterable[Path]) -> Scan:
    """Every file in the layers of image archives."""
    listed = list(archives)
    if not listed:
        return Scan(
            name=IMAGES, what="files", not_checked="there are no images in dist/; `make images` makes them"
        )
    return scan(IMAGES, "files", (each for archive in listed for each in _layers(archive)))


def _versions(root: Path) -> Iterator[tuple[str, str, bytes]]:
    paths = {}
    for line in _git(root, "rev-list", "--objects", "--all", "HEAD").decode(errors="replace").splitlines():
        blob, _, path = line.partition(" ")
        if path:
            paths[blob] = path
    asked = "".join(f"{blob}\n" for blob in paths).encode()
    about = _git(root, "cat-file", "--batch-check", told=asked).decode().splitlines()
    small = [
        line.split()[0] for line in about if line.split()[1] == "blob" and int(line.split()[2]) <= MAX_BYTES
    ]
    said = _git(root, "cat-file", "--batch", told="".join(f"{blob}\n" for blob in small).encode())
    at = 0
    for blob in small:
        end = said.index(b"\n", at)
        size = int(said[at:end].split()[2])
        yield blob, paths[blob], said[end + 1 : end + 1 + size]
        at = end + size + 2


def _layers(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    with tarfile.open(archive) as outer:
        for member in outer:
            blob = outer.extractfile(member) if member.isfile() else None
            if blob is None or blob.read(2) != _GZIP:
                continue
            blob.seek(0)
            yield from _files(blob)


def _files(layer: IO[bytes]) -> Iterator[tuple[str, str, bytes]]:
    with tarfile.open(fileobj=layer, mode="r:gz") as inner:
        for member in inner:
            file = inner.extractfile(member) if member.isfile() and member.size <= MAX_BYTES else None
            if file is not None:
                yield member.name, member.name, file.read()


def _text(content: bytes) -> str | None:
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _git(root: Path, *arguments: str, told: bytes = b"") -> bytes:
    return subprocess.run(
        [require("git"), "-C", str(root), *arguments],
        input=told,
        capture_output=True,
        timeout=_WITHIN_S,
        check=True,
    ).stdout
