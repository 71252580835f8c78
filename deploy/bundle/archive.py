"""What every bundle is made with: repeatable bytes, where its code came from, files written in one step."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deploy.controller.programs import find
from mt5crs_release.bundles.bundle import MANIFEST, SIGNATURE

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Origin:
    """Where the code comes from; recorded in the manifest, outside the content digest."""

    commit: str
    built: int
    """Seconds since 1970: ``SOURCE_DATE_EPOCH``, else the time of the commit."""


def origin(root: Path) -> Origin:
    """Return commit and time of the work tree; ``unknown`` outside git, or where git is not installed."""
    program = find("git")

    def git(*arguments: str) -> str:
        if program is None:
            return ""
        answer = subprocess.run(
            [program, "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() if answer.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "pyproject.toml", "uv.lock")
    built = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or "315532800"
    return Origin((git("rev-parse", "HEAD") or "unknown") + ("+changes" if changed else ""), int(built))


def pack(members: dict[str, bytes], built: int) -> bytes:
    """Return ``members`` as a tar whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    write_tar(buffer, members, built)
    return buffer.getvalue()


def write_tar(stream: IO[bytes], members: Mapping[str, bytes | Path], built: int) -> None:
    """Write ``members`` (content, or the file that has it) as a tar whose bytes depend on nothing else."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        # Manifest and signature first: a reader can judge before it reads the rest.
        for name in sorted(members, key=lambda name: (name not in (MANIFEST, SIGNATURE), name)):
            content = members[name]
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = built, 0o644
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                continue
            with content.open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, file)


def canonical(document: dict[str, Any]) -> bytes:
    """Return ``document`` as readable JSON that depends on nothing but its content."""
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of ``content``, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Write ``path`` in one step; a file that is the same already is left alone."""
    if path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)
