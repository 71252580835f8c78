"""Whether hosts still run what this run gave them: looked at again while later hosts have their turn.

The release tool of a host has called a generation healthy once, when it activated it. Until it is confirmed
the host may be rebooted, its services may die: it then goes back by itself, and nobody tells the deployer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.remote import ssh, windows_play
from deploy.rollout.record import Failure

ASK_TIMEOUT_S = 20
SILENT_S = 90.0
"""How long a host is asked again that gives no answer; a reboot takes less."""
DOWN_S = 10.0
"""How long units may be down before that counts: systemd starts them again."""
AGAIN_S = 2.0
_TOGETHER = 20


@dataclass(frozen=True)
class Given:
    """One service of a host, and the generation that waits there for its confirmation."""

    host: str
    service: str
    generation: str


@dataclass(frozen=True)
class Found:
    """What is wrong with a service; `patience_s`: how long it may be before it counts."""

    given: Given
    what: str
    patience_s: float = 0.0


Ask = Callable[[Sequence[str]], Mapping[str, Mapping[str, Any] | str]]
"""Hosts → the release tool's status of each, or why there is none."""


def judge(given: Given, status: Mapping[str, Any] | str) -> Found | None:
    """What is wrong by the status of the host (or the reason why there is none); None: it holds."""
    if isinstance(status, str):
        return Found(given, f"{given.host} gives no answer: {status}", SILENT_S)
    now = status.get("services", {}).get(given.service, {})
    of = f"{given.service} of {given.host}"
    if now.get("current") != given.generation:
        back = f"went back to {now['current']}" if now.get("current") else "runs no more"
        return Found(given, f"{of} was on {given.generation} and {back}: {_why(given, now)}")
    if now.get("state") not in ("provisional", "confirmed"):
        return Found(given, f"{of} is leaving {given.generation} ({now.get('state')}): {_why(given, now)}")
    down = {unit: state for unit, state in now.get("units", {}).items() if state != "active"}
    if down:
        listed = ", ".join(f"{unit} is {state}" for unit, state in down.items())
        return Found(given, f"{of} was healthy on {given.generation}, but {listed}", DOWN_S)
    return None


def _why(given: Given, now: Mapping[str, Any]) -> str:
    left = now.get("left") or {}
    reason = left.get("reason") if left.get("generation") == given.generation else None
    return str(reason or f"`mt5crs-release list {given.service}` there says why")


def look(
    given: Iterable[Given],
    ask: Ask,
    stopped: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Found | None:
    """The first thing that is wrong, or None; what may pass by itself is looked at again for a while."""
    left, began = list(given), clock()
    while left and not stopped():
        statuses = ask(list(dict.fromkeys(one.host for one in left)))
        found = [
            one for one in (judge(one, statuses.get(one.host, "it said nothing")) for one in left) if one
        ]
        final = next((one for one in found if clock() - began >= one.patience_s), None)
        if final is not None or not found:
            return final
        left = [one.given for one in found]
        sleep(AGAIN_S)
    return None


def failure(found: Found, after: str) -> Failure:
    """That a run ends because of it."""
    remedy = f"see the journal of {found.given.host}, mend the cause, then deploy again"
    return Failure(found.given.host, f"look again after {after}", found.what, remedy)


def on_hosts(fleet: Fleet) -> Ask:
    """Asks the hosts of this fleet, those with Windows by a play."""

    def ask(hosts: Sequence[str]) -> dict[str, Mapping[str, Any] | str]:
        windows = [host for host in hosts if host in fleet.in_group(WINDOWS)]
        linux = [host for host in hosts if host not in windows]
        with ThreadPoolExecutor(_TOGETHER) as pool:
            said = dict(zip(linux, pool.map(lambda host: _status(fleet, host), linux), strict=True))
        if not windows:
            return said
        played = windows_play.run(fleet.inventory, windows, "observe", {})
        reasons = {one.host: one.reason for one in played.troubles}
        return said | {host: played.statuses.get(host, reasons.get(host, "no answer")) for host in windows}

    return ask


def _status(fleet: Fleet, host: str) -> Mapping[str, Any] | str:
    reply = ssh.run(fleet.hosts[host], ssh.STATUS, timeout_s=ASK_TIMEOUT_S)
    return reply.document if reply.status == 0 and reply.document is not None else reply.why
