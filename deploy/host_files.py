"""Files that are kept on a host: compared by one listing, replaced atomically; as shell text."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ManagedFile:
    """A file as it has to be on the host. Not for secrets: those go to the release tool."""

    path: str
    content: bytes
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"

    @property
    def seen_as(self) -> str:
        """What `listing_script` prints for this file when it is as it has to be."""
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
        """What `listing_script` prints for this directory when it is as it has to be."""
        return f"directory:{self.mode.lstrip('0')}:{self.owner}:{self.group}:"


def listing_script(paths: Iterable[str]) -> str:
    """Shell text that prints `seen <path> <kind>:<mode>:<owner>:<group>:<sha256>` for each path that exists.

    A symbolic link counts as neither file nor directory: it is listed as `other` and hence replaced.
    """
    words = " ".join(shlex.quote(path) for path in paths)
    return (
        f"for path in {words}; do\n"
        '  if [ -L "$path" ]; then echo "seen $path other"\n'
        '  elif [ -d "$path" ]; then echo "seen $path directory:$(stat -c %a:%U:%G "$path"):"\n'
        '  elif [ -f "$path" ]; then '
        'echo "seen $path file:$(stat -c %a:%U:%G "$path"):$(sha256sum <"$path" | cut -c1-64)"\n'
        "  fi\n"
        "done"
    )


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
    return (
        "set -eu; umask 077; "
        f"[ -d {folder} ] || install -d -m 0755 {folder}; "
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
