"""Says on the Hub that a deployer lives; a process of its own, started by `deploy.coordination.fleet_lock`.

Standard input: one JSON object a line; first `hub`, `id`, `every_s`, then `phase` or `end`. When it closes
without `end` the deployer is dead, and the lock is said to be free. A heartbeat that does not get through is
tried again; a refused one means that the lock is lost: that is printed, and this process ends.
A deployer that is stopped (SIGSTOP, Ctrl-Z) gets no heartbeats, so that it cannot hold the lock for ever.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from deploy.coordination.sidecar import begun, is_stopped
from deploy.remote import ssh

_TIMEOUT_S = 20
_SPACING_S = 0.5
"""At most so often: parts with nothing to do pass faster than the Hub can be told."""
_LOOK_S = 1.0
"""How often a stopped deployer is looked at; it is told of a lost lock that soon after it goes on."""


def main() -> int:
    """Send heartbeats until the deployer ends."""
    lines, deployer, first = begun()
    hub, name, every_s = first["hub"], str(first["id"]), float(first["every_s"])
    sent = time.monotonic()
    due = sent + every_s
    phase = ""
    while True:
        message = lines.next(max(0.0, due - time.monotonic()))
        if message == {} and is_stopped(deployer):
            due = time.monotonic() + _LOOK_S
            continue
        if message is None:
            _beat(hub, name, phase, "--gone", "its process ended")
            return 1
        if message.get("end"):
            return 0
        if message.get("phase"):
            phase, due = str(message["phase"]), min(due, sent + _SPACING_S)
        if time.monotonic() < due:
            continue
        sent = time.monotonic()
        lost = _beat(hub, name, phase)
        if lost:
            print(lost, flush=True)
            return 0
        due = time.monotonic() + every_s


def _beat(hub: dict[str, Any], name: str, phase: str, *words: str) -> str:
    """One heartbeat; returns who holds the lock when it is lost."""
    done = ["--phase", phase] if phase else []
    reply = ssh.run(
        hub, [ssh.TOOL, "deployment", "beat", name, *done, *words, "--json"], timeout_s=_TIMEOUT_S
    )
    answer = reply.document or {}  # one that cannot be read says nothing of the lock: it is asked again
    return str(answer["error"]["message"]) if answer.get("lost") else ""


if __name__ == "__main__":
    sys.exit(main())
