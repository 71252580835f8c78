"""The file of known hosts gets the host's key under its new address, or loses it again."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.controller.programs import require


class KnownHostsError(RuntimeError):
    """The file cannot be read; the text says why."""


def named(address: str, port: int | None) -> str:
    """How ssh looks an address up."""
    return address if port in (None, 22) else f"[{address}]:{port}"


def keys_of(file: Path, name: str) -> list[str]:
    """`kind key` of every line for a name, hashed ones too. KnownHostsError unless the file can be read."""
    if not file.is_file():
        raise KnownHostsError(f"there is no {file}; `ssh-keyscan` makes it, compare what it prints")
    done = subprocess.run(
        [require("ssh-keygen"), "-F", name, "-f", str(file)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode not in (0, 1) or done.stderr.strip():
        raise KnownHostsError(f"{file} cannot be read: {done.stderr.strip() or done.returncode}")
    # Lines of certificates and withdrawn keys begin with a mark, and move by hand.
    lines = [line.split() for line in done.stdout.splitlines() if line and line[0] not in "#@"]
    return [" ".join(words[1:3]) for words in lines if len(words) >= 3]


def lines_for(name: str, keys: Sequence[str], there: Sequence[str]) -> list[str]:
    """Lines that give a name these keys, but for those that it has. Pure."""
    return [f"{name} {key}" for key in dict.fromkeys(keys) if key not in there]


def with_lines(text: str, lines: Sequence[str]) -> str:
    """The file's text with these lines at its end. Pure."""
    known = text.splitlines()
    new = [line for line in lines if line not in known]
    end = "" if not text or text.endswith("\n") else "\n"
    return text + (end + "\n".join(new) + "\n" if new else "")


def without_lines(text: str, lines: Sequence[str]) -> str:
    """The file's text without these lines. Pure."""
    return "".join(line for line in text.splitlines(keepends=True) if line.rstrip("\n") not in lines)
