"""What a command does to a fleet while nobody deploys: under its lock, on record beside deployments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.coordination.fleet_lock import FleetLock, LockError, hub_of
from deploy.fleet.inventory import Fleet
from deploy.rollout.record import Rollout

_ENGINE = "mt5crs"


@dataclass
class Held:
    """The lock. `outcome`: how it ended, unless that shows (an error: failed, else changed)."""

    id: str
    """Under which the Hub has it."""
    require: Callable[[], None]
    """LockError once the lock is lost, for before each step: a process that was stopped may learn so late."""
    outcome: str = ""


@contextmanager
def alone(
    fleet: Fleet, action: str, why: str, say: Callable[[str], None], *, without: str = ""
) -> Iterator[Held]:
    """Hold the fleet's lock while the body runs; what dead deployments left is settled first, as by one.

    LockError, naming who has the lock, when it cannot be had: the body is not run. `without`: how the command
    can be told to go on without it, for when the Hub does not answer; empty: it cannot.
    """
    rollout = Rollout(_ENGINE, fleet.environment, action=action, why=why)
    lock = FleetLock(hub_of(fleet), rollout.id, without=without)

    def require() -> None:
        lock.check(rollout)
        if lock.lost:
            raise LockError(f"the fleet's lock is lost: {lock.lost}. Run again after that")

    lock.take(rollout, fleet, last=True)
    _tell(lock, say)
    held, outcome = Held(rollout.id, require), "failed"
    try:
        yield held
        outcome = "changed"
    except (KeyboardInterrupt, SystemExit):
        outcome = "interrupted"
        raise
    finally:
        outcome = held.outcome or outcome
        rollout.seconds = time.monotonic() - rollout.began
        lock.release({**rollout.record(), "outcome": outcome, "sentence": f"{action}: {why} ({outcome})."})
        _tell(lock, say)


def _tell(lock: FleetLock, say: Callable[[str], None]) -> None:
    for line in lock.said:
        say(line)
    lock.said.clear()
