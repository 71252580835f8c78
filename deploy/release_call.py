"""Recognises a call of the release tool in what Ansible tells of a task."""

from __future__ import annotations

import re
from typing import NamedTuple

TOOL = "mt5crs-release"
CHANGING = ("stage", "activate", "confirm", "revert", "rollback", "undo")
# On Windows and from a shell a command is told as one line: PYTHON "…\mt5crs-release.pyz" VERB SERVICE …
_CALL = re.compile(rf"{TOOL}(?:\.pyz)?\"? (status|{'|'.join(CHANGING)})(?: (\w[\w-]*))?")


class ReleaseCall(NamedTuple):
    """What was asked of the release tool; `service` is empty for what concerns a host's services together."""

    verb: str
    service: str


def call_of(command: object) -> ReleaseCall | None:
    """The call in a task's `cmd`, a list of words or one line; None if the task called something else."""
    line = " ".join(map(str, command)) if isinstance(command, list) else str(command)
    found = _CALL.search(line)
    return ReleaseCall(found[1], found[2] or "") if found else None
