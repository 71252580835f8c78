"""Keeps a roll-out ahead of its own deadlines, alike for both engines.

A generation that waits for its confirmation goes back by itself after `fleet_confirm_timeout_s`. As long as
the deployer lives, a process of its own gives it that time anew, also in the middle of a step. It does
nothing while the deployer is stopped (SIGSTOP, Ctrl-Z), and ends with it: the hosts then go back.

Standard input: first `inventory`, then `host`, `service`, `generation`, `timeout_s` of each that waits, or
`end`. Windows gateways get their time beforehand (deploy/operations/windows.py).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.coordination.sidecar import Sidecar, begun, is_stopped
from deploy.fleet.inventory import Fleet, InventoryError, resolve
from deploy.remote import ssh

_SHARE = 3
"""Prolonged once this part of the time is over, so that two more tries are left."""
_LOOK_S = 1.0
_ASK_TIMEOUT_S = 30.0
_TOGETHER = 20
_END_TIMEOUT_S = 1.0


@dataclass
class Waiting:
    """A provisional generation; it has `timeout_s` seconds from `since` (time.monotonic())."""

    host: str
    service: str
    generation: str
    timeout_s: float
    since: float

    @property
    def due(self) -> float:
        """When it is to be prolonged, as time.monotonic()."""
        return self.since + self.timeout_s / _SHARE


@dataclass
class Deadlines:
    """The deployer's side: what waits is named once; `end` when all is confirmed or put back."""

    inventory: Path
    said: list[str] = field(default_factory=list)
    """Why deadlines could not be prolonged, if so."""
    _sidecar: Sidecar | None = field(default=None, repr=False)

    def waits(self, host: str, service: str, generation: str, timeout_s: float) -> None:
        """From now on keep this provisional generation from going back by itself."""
        if self._sidecar is None:
            self._sidecar = Sidecar(
                "deploy.coordination.deadlines", {"inventory": str(self.inventory.resolve())}
            )
        self._sidecar.tell(
            {"host": host, "service": service, "generation": generation, "timeout_s": timeout_s}
        )

    def end(self) -> None:
        """From now on every host keeps its own deadline."""
        if self._sidecar is not None:
            said = self._sidecar.said()
            self.said += [said] if said else []
            self._sidecar.end(_END_TIMEOUT_S)
            self._sidecar = None


def main() -> int:
    """Prolong what waits until the deployer ends."""
    lines, deployer, first = begun()
    keeping = Keeping(Path(first["inventory"]))
    while os.getppid() == deployer:  # its pipe may be open for longer: Ansible's workers have it too
        message = lines.next(_LOOK_S)
        if message is None or message.get("end"):
            break
        if message:
            keeping.waits(Waiting(**message, since=time.monotonic()))
        elif not is_stopped(deployer):
            try:
                keeping.prolong(time.monotonic())
            except Exception as error:  # whatever it is, the hosts are safe, and the deployer must say it
                print(f"deadlines could not be prolonged, hosts go back at theirs: {error}", flush=True)
                return 1
    return 0


class Keeping:
    """What waits, and how to give it more time."""

    def __init__(self, inventory: Path) -> None:
        self.inventory = inventory
        self.waiting: dict[tuple[str, str], Waiting] = {}
        self._fleet: Fleet | None = None

    def waits(self, one: Waiting) -> None:
        """One more, instead of what the same service of the host had before."""
        self.waiting[one.host, one.service] = one

    def prolong(self, now: float) -> None:
        """Give time to all that are due; what is not provisional any more is forgotten."""
        found = due(self.waiting.values(), now)
        if not found:
            return
        if self._fleet is None:
            # Read only by a run that takes that long; most are over before.
            self._fleet = resolve(self.inventory)
        hosts = self._fleet.hosts
        for one in found:
            if one.host not in hosts:
                raise InventoryError(f"{one.host} is not in {self.inventory}")
        with ThreadPoolExecutor(_TOGETHER) as pool:
            over = list(pool.map(lambda one: not _prolong(hosts[one.host], one, now), found))
        for one, is_over in zip(found, over, strict=True):
            if is_over:
                del self.waiting[one.host, one.service]


def due(waiting: Iterable[Waiting], now: float) -> list[Waiting]:
    """Those that are to be prolonged at `now` (time.monotonic())."""
    return [one for one in waiting if now >= one.due]


def _prolong(host: Mapping[str, Any], one: Waiting, now: float) -> bool:
    """Ask the host; False when the generation does not wait any more.

    A host that gives no answer, or is busy, is asked again; if it never answers it goes back by itself, and
    its confirmation fails and says so.
    """
    command = [ssh.TOOL, "extend", one.service, "--generation", one.generation, "--confirm-timeout"]
    ask_timeout_s = min(_ASK_TIMEOUT_S, one.timeout_s / _SHARE)
    reply = ssh.run(host, [*command, f"{one.timeout_s:g}", "--json"], timeout_s=ask_timeout_s)
    answer = reply.document
    if answer is None:
        return True
    if reply.status == 0 and answer.get("state") == "provisional":
        one.since = now
        return True
    return reply.status is None or (answer.get("error") or {}).get("kind") == "busy"


if __name__ == "__main__":
    sys.exit(main())
