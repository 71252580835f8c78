"""Files that are kept on a host: compared by one listing, replaced atomically; as shell text."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import shlex
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KEPT = ".before-mt5crs"
"""Follows the name of a file of Debian's that was replaced."""


@dataclass(frozen=True)
class ManagedFile:
    """A file as it has to be on the host. Not for secrets: those go to the release tool."""

    path: str
    content: bytes
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    kept_unless: str = ""
    """Debian has a file of its own there, which is kept beside it (`KEPT`) unless this path exists: then a
    deployment was here before, and what is there is ours. Empty: there is none of Debian's."""

    @property
    def seen_as(self) -> str:
        """What `listed` says of this file when it is as it has to be."""
        digest = hashlib.sha256(self.content).hexdigest()
        return f"file:{self.mode.lstrip('0')}:{self.owner}:{self.group}:{digest}"


@dataclass(frozen=True)
class ManagedDirectory:
    """A directory as it has to be on the host."""

    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"

    @property
    def seen_as(self) -> str:
        """What `listed` says of this directory when it is as it has to be."""
        return f"directory:{self.mode.lstrip('0')}:{self.owner}:{self.group}:"


def listing_script(paths: Iterable[str]) -> str:
    """Shell text that prints what `listed` reads of each path that exists: two programs for all of them."""
    words = " ".join(shlex.quote(path) for path in paths)
    return (
        f"stat -c 'seen %f:%U:%G %n' -- {words} 2>/dev/null\n"
        f"sha256sum -- {words} 2>/dev/null | sed 's/^/digest /'"
    )


def listed(seen: Iterable[str], digests: Iterable[str]) -> dict[str, str]:
    """How each path is, in the words of `seen_as`; a symbolic link is `other` and hence replaced.

    :param seen, digests: the rest of the lines that begin with these words
    """
    sums = {path: digest for digest, _, path in (line.partition("  ") for line in digests)}
    found = {}
    for line in seen:
        what, _, path = line.partition(" ")
        mode, owner, group = what.split(":")
        bits = int(mode, 16)
        rights = f"{stat.S_IMODE(bits):o}:{owner}:{group}"
        if stat.S_ISDIR(bits):
            found[path] = f"directory:{rights}:"
        else:
            found[path] = f"file:{rights}:{sums.get(path, '')}" if stat.S_ISREG(bits) else "other"
    return found


def unlike(
    wanted: Iterable[ManagedFile] | Iterable[ManagedDirectory], seen: Mapping[str, str]
) -> tuple[str, ...]:
    """Paths that are missing on the host or not as wanted, in the order given."""
    return tuple(item.path for item in wanted if seen.get(item.path) != item.seen_as)


def placing_script(file: ManagedFile) -> str:
    """Shell text that puts a file in place: never half-written, never with wider rights than its own.

    It reads the content from standard input, as `encoded` gives it.
    """
    target, folder = shlex.quote(file.path), shlex.quote(posixpath.dirname(file.path))
    hidden = shlex.quote(posixpath.join(posixpath.dirname(file.path), "." + posixpath.basename(file.path)))
    kept = shlex.quote(file.path + KEPT)
    keep = (
        f"[ -e {shlex.quote(file.kept_unless)} ] || [ -e {kept} ] || [ ! -e {target} ] || "
        f"cp -aT {target} {kept}; "
        if file.kept_unless
        else ""
    )
    return (
        "set -eu; umask 077; "
        f"[ -d {folder} ] || install -d -m 0755 {folder}; {keep}"
        f"staged=$(mktemp {hidden}.XXXXXX); "
        "trap 'rm -f \"$staged\"' EXIT; "
        'base64 -d >"$staged"; '
        f'chown {shlex.quote(file.owner)}:{shlex.quote(file.group)} "$staged"; '
        f'chmod {file.mode} "$staged"; sync "$staged"; mv -fT "$staged" {target}'
    )


def encoded(file: ManagedFile) -> str:
    """What `placing_script` reads."""
    return base64.encodebytes(file.content).decode()


def directory_script(directory: ManagedDirectory) -> str:
    """Shell text that makes a directory, or corrects its rights."""
    return shlex.join(
        [
            *("install", "-d", "-m", directory.mode, "-o", directory.owner, "-g", directory.group),
            directory.path,
        ]
    )
