"""Calls of the release tool, for both engines: recognised in what Ansible tells of a task, answers read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from deploy.rollout.answer import ACCESS
from deploy.rollout.record import Failure, failure_of
from mt5crs.foreign_text import shown_tree

TOOL = "mt5crs-release"
ROLLBACK = "rollback"
CHANGING = ("stage", "activate", "extend", "confirm", "revert", ROLLBACK, ACCESS, "undo")
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


_Word = str | None


class _Service(msgspec.Struct):
    """What a status says of a service, as far as anybody relies on it."""

    current: _Word = None
    previous: _Word = None
    version: _Word = None
    state: _Word = None
    digest: _Word = None
    units: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, Any] | None = None


class _Cutover(msgspec.Struct):
    """How long a unit was away, in seconds."""

    gap_s: float | msgspec.UnsetType = msgspec.UNSET


class _Answer(msgspec.Struct):
    """What the tool prints, as far as anybody relies on it; a host that lies prints something else."""

    services: dict[str, _Service] | msgspec.UnsetType = msgspec.UNSET
    deployment: dict[str, Any] | str | None = None
    error: dict[str, Any] | None = None
    health: dict[str, Any] | None = None
    standby: dict[str, Any] | None = None
    shadow: dict[str, Any] | None = None
    cutover: dict[str, _Cutover] | None = None
    generation: _Word = None
    previous: _Word = None
    version: _Word = None
    state: _Word = None
    reason: _Word = None
    seconds: float = 0.0
    changes: list[str] | None = None
    review: dict[str, Any] | None = None
    journal: list[str] | None = None
    generations: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    bundles: list[str] | msgspec.UnsetType = msgspec.UNSET
    runtimes: list[str] | msgspec.UnsetType = msgspec.UNSET
    unread: list[str] | None = None


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
    """The JSON object that a call printed, its texts safe to show; None if it printed anything else, also an
    object that no release tool would print.
    """
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            return None
        msgspec.convert(found, _Answer)
    except (ValueError, RecursionError):
        return None
    safe: dict[str, Any] = shown_tree(found)
    return safe


def not_told(host: str, answer: dict[str, Any] | None, text: str) -> Failure:
    """Failure of a host that could not say what runs, from `status`'s JSON, or its output when it is none.

    Every deployment brings the tool, but first asks the one that is there.
    """
    failure = failure_of(host, LOOK, answer, text)
    if answer is not None:
        return failure
    message = f"the release tool did not say what runs: {failure.message}"
    return replace(failure, message=message, remedy=_ASK_BY_HAND)
