"""Calls of the release tool, for both engines: recognised in what Ansible tells of a task, answers read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, NamedTuple

from deploy.rollout.record import Failure, failure_of

TOOL = "mt5crs-release"
CHANGING = ("stage", "activate", "extend", "confirm", "revert", "rollback", "undo")
LOOK = "ask what runs"
"""The step in which every host says what runs, before anything is changed."""
LOOK_AGAIN = "look at what runs again"
"""The step in which a host that went back waits for the health of all that runs there."""
_ASK_BY_HAND = (
    f"run `{TOOL} status` on the host as root; if the tool is broken, remove it and run again: a deployment "
    "brings it anew"
)
# On Windows and from a shell a command is told as one line: PYTHON "…\mt5crs-release.pyz" VERB SERVICE …
_CALL = re.compile(rf"{TOOL}(?:\.pyz)?\"? (status|check|{'|'.join(CHANGING)})(?: (\w[\w-]*))?")


class ReleaseCall(NamedTuple):
    """What was asked of the release tool; `service` is empty for what concerns a host's services together."""

    verb: str
    service: str


def call_of(command: object) -> ReleaseCall | None:
    """The call in a task's `cmd`, a list of words or one line; None if the task called something else."""
    line = " ".join(map(str, command)) if isinstance(command, list) else str(command)
    found = _CALL.search(line)
    return ReleaseCall(found[1], found[2] or "") if found else None


def document_of(text: str) -> dict[str, Any] | None:
    """The JSON object that a call printed; None if it printed anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def not_told(host: str, answer: dict[str, Any] | None, text: str) -> Failure:
    """Failure of a host that could not say what runs, from `status`'s JSON, or its output when it is none.

    Every deployment brings the tool, but first asks the one that is there.
    """
    failure = failure_of(host, LOOK, answer, text)
    if answer is not None:
        return failure
    message = f"the release tool did not say what runs: {failure.message}"
    return replace(failure, message=message, remedy=_ASK_BY_HAND)
