"""What a dead deployment has left on the hosts: finished if it had decided to confirm, otherwise undone.

`needed` decides from the record and from what the hosts say; `settle` does it. Only the fleet's lock holder
may call it. A generation that has gone back by itself after the decision is activated anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deploy import ssh
from deploy.inventory import Fleet
from deploy.rollout import SERVICES

CONFIRM = "confirm"
"""The phase from which on a deployment is finished instead of undone."""
PUT_BACK = "put back"
"""How the phases begin in which a deployment undoes itself, also what it has confirmed by then."""
TOOL = "/usr/local/sbin/mt5crs-release"
_STATUS_TIMEOUT_S = 30
_ACT_TIMEOUT_S = 240
_TOGETHER = 20


@dataclass(frozen=True)
class Action:
    """One call of the release tool: `verb` is confirm, activate or revert."""

    host: str
    service: str
    verb: str
    generation: str

    @property
    def arguments(self) -> list[str]:
        """The command line on the host."""
        named = ["--confirmed" if self.verb == "revert" else "--generation", self.generation]
        at_once = ["--confirm-timeout", "0"] if self.verb == "activate" else []
        return [TOOL, self.verb, self.service, *named, *at_once, "--json"]


@dataclass
class Settled:
    """What became of an unfinished deployment."""

    outcome: str
    sentence: str
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def needed(record: Mapping[str, Any], statuses: Mapping[str, Mapping[str, Any]]) -> list[Action]:
    """The calls that settle a deployment, in the order in which they are to be made on each host."""
    finish = record.get("phase") == CONFIRM
    putting_back = str(record.get("phase") or "").startswith(PUT_BACK)
    decided = (
        {tuple(str(text).split(":", 2)) for text in record.get("provisional") or ()}
        if finish or putting_back
        else set()
    )
    found = []
    for host, status in statuses.items():
        for service in SERVICES if finish else reversed(SERVICES):
            now = status.get("services", {}).get(service)
            if now is None:
                continue
            wanted = next((gen for of, name, gen in decided if (of, name) == (host, service)), None)
            if putting_back:
                if now.get("pending") or (wanted is not None and now.get("current") == wanted):
                    found.append(Action(host, service, "revert", str(now.get("pending") or wanted)))
            elif wanted is not None and now.get("pending") == wanted:
                found.append(Action(host, service, "confirm", wanted))
            elif wanted is not None and now.get("current") != wanted:
                found.append(Action(host, service, "activate", wanted))
            elif wanted is None and now.get("pending"):
                found.append(Action(host, service, "revert", str(now["pending"])))
    return found


def settle(fleet: Fleet, record: Mapping[str, Any]) -> Settled:
    """Finish or undo a deployment on every host that can be asked."""
    hosts = [host for host in record.get("hosts") or fleet.hosts if host in fleet.hosts]
    hosts = [host for host in hosts if host not in fleet.in_group("windows")]
    with ThreadPoolExecutor(_TOGETHER) as pool:
        replies = dict(zip(hosts, pool.map(lambda host: _status(fleet, host), hosts), strict=True))
    statuses = {host: status for host, status in replies.items() if status is not None}
    silent = [host for host in hosts if host not in statuses]
    finish = record.get("phase") == CONFIRM
    actions = needed(record, statuses)
    by_host = {host: [action for action in actions if action.host == host] for host in statuses}
    with ThreadPoolExecutor(_TOGETHER) as pool:
        done = [
            line for lines in pool.map(lambda todo: _act(fleet, todo), by_host.values()) for line in lines
        ]
    did = [text for text, failed in done if not failed]
    failures = [text for text, failed in done if failed]
    outcome = "changed" if finish else "undone"
    word = "Finished" if finish else "Undone"
    sentence = f"{word} by the next run: {'; '.join(did) or 'nothing was left to do on the hosts'}."
    if silent:
        sentence += f" Not asked, they go back by themselves: {', '.join(silent)}."
    lines = did or ["nothing is left of it on the hosts"]
    if silent:
        lines.append(f"could not be asked, goes back by itself: {', '.join(silent)}")
    return Settled(outcome, sentence, lines, failures)


def _status(fleet: Fleet, host: str) -> dict[str, Any] | None:
    reply = ssh.run(fleet.hosts[host], [TOOL, "status", "--json"], timeout_s=_STATUS_TIMEOUT_S)
    if reply.status is None:
        return None
    try:
        found = json.loads(reply.output)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _act(fleet: Fleet, actions: Iterable[Action]) -> list[tuple[str, bool]]:
    words = {"confirm": "confirmed", "activate": "activated again", "revert": "put back"}
    said = []
    for action in actions:
        reply = ssh.run(fleet.hosts[action.host], action.arguments, timeout_s=_ACT_TIMEOUT_S)
        what = f"{action.service} {action.generation} on {action.host}"
        if reply.status == 0:
            said.append((f"{what} {words[action.verb]}", False))
        else:
            said.append((f"{action.verb} {what}: {reply.error or 'no answer'}", True))
    return said
