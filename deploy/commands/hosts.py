"""What the release tools of a fleet's hosts say, asked from the controller, all at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mt5crs.foreign_text import shown

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_TIMEOUT_S = 30
_LINES = 60
"""Newest lines of a journal in which a service's last words are looked for."""


def statuses(fleet: Fleet) -> dict[str, Mapping[str, Any] | str]:
    """Host → its release tool's status (`{}`: no tool there yet), or why it is not known."""
    from deploy.coordination.holding import on_hosts

    return dict(on_hosts(fleet)(list(fleet.hosts)))


def why_it_ended(variables: Mapping[str, Any], unit: str) -> str:
    """What a service gave as the reason of its end, by its journal; empty when that is not known.

    systemd says no more than that a job has failed.
    """
    from deploy.remote import ssh

    words = ["journalctl", "-u", unit, "-n", str(_LINES), "-o", "cat", "--no-pager"]
    reply = ssh.run(variables, words, timeout_s=_TIMEOUT_S)
    return last_reason(reply.output) if reply.status == 0 else ""


def last_reason(journal: str) -> str:
    """The reason in the newest CRITICAL line of a service's journal; empty when there is none. Pure."""
    for line in reversed(journal.splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            continue  # systemd's own
        if isinstance(said, dict) and said.get("level") == "CRITICAL" and said.get("reason"):
            return shown(str(said["reason"]))
    return ""


def deploying(fleet: Fleet) -> str | None:
    """Who deploys at this moment, or why that is not known; None: nobody."""
    from deploy.coordination.fleet_lock import hub_of
    from deploy.remote import ssh

    hub = hub_of(fleet)
    if hub is None:
        return None
    told = ssh.run(hub, [ssh.TOOL, "deployment", "list", "--json"], timeout_s=_TIMEOUT_S)
    holder = (told.document or {}).get("holder")
    if told.status != 0 or told.document is None:
        return f"whether somebody deploys is unknown: the Hub says: {told.why}"
    if holder and not holder["gone"]:  # from a dead one the lock is taken over
        return f"{holder['who']} on {holder['controller']} deploys now"
    return None
