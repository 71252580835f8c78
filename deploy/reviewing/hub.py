"""Hands submissions to the Hub's queue of reviews, and asks how far they are."""

from __future__ import annotations

import base64
from typing import Any

from deploy.fleet.inventory import Fleet
from deploy.remote import script
from deploy.reviewing import on_host

_TIMEOUT_S = 300


class QueueError(RuntimeError):
    """It cannot be done; the text says why."""


def host_of(fleet: Fleet) -> str:
    """The host with the queue. Raises QueueError."""
    hosts = fleet.in_group("review")
    if not hosts:
        raise QueueError(
            f"{fleet.inventory} has no host in the group review; put the Hub into it and deploy, or review "
            "here with `mt5crs review run`"
        )
    return hosts[0]


def put(fleet: Fleet, name: str, content: bytes) -> dict[str, Any]:
    """Hand a submission over: `state` is taken, waiting or answered. Raises QueueError."""
    most = str(fleet.hosts[host_of(fleet)]["review_queue_most"])
    return _ask(fleet, "put", name, most, stdin=base64.b64encode(content).decode())


def look(fleet: Fleet, name: str) -> dict[str, Any]:
    """How far a submission is; `answer`, once there is one, is what the service wrote. Raises QueueError."""
    told = _ask(fleet, "look", name)
    if "answer" in told:
        told["answer"] = base64.b64decode(str(told["answer"]))
    return told


def _ask(fleet: Fleet, *arguments: str, stdin: str = "") -> dict[str, Any]:
    host = host_of(fleet)
    try:
        return script.ask(fleet.hosts[host], on_host, *arguments, stdin=stdin, timeout_s=_TIMEOUT_S)
    except (script.ScriptError, ValueError) as error:
        raise QueueError(f"{host}: {error}") from None
