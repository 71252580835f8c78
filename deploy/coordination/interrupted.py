"""What a run that is told to stop does with what it has begun: the same as the next run would."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from deploy.coordination import unfinished
from deploy.fleet.inventory import Fleet
from deploy.rollout import undo_steps
from deploy.rollout.answer import apply
from deploy.rollout.record import Failure, Rollout


def left(rollout: Rollout, decision: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether what was decided is finished (otherwise what was activated is put back), and the record to
    settle by. `decision`: what the fleet's lock knows of the run.
    """
    if decision and not rollout.failures:
        return True, dict(decision)
    whole = rollout.action == "deploy" or bool(rollout.undoes)
    return False, {**decision, "phase": unfinished.PUT_BACK} if whole else {}


def settle(
    rollout: Rollout, fleet: Fleet, record: Mapping[str, Any], tell: Callable[[str], None], *, finish: bool
) -> None:
    """Do it on the hosts, over connections of its own; what they answer is noted in the roll-out."""
    done = unfinished.settle(fleet, {**record, "hosts": list(fleet.hosts)})
    for line in done.lines:
        tell(f"  {line}")
    for text in done.failures:
        rollout.fail(Failure("fleet", "settle", text, "run again: the next run settles what is left"))
    for answer in done.answers:
        if answer.verb != "undo":
            apply(rollout, answer)
            continue
        since = time.monotonic() - answer.seconds
        document, step = dict(answer.document or {}), undo_steps.BACK
        undo_steps.note(rollout, answer.host, step, document, answer.text, good=True, since=since)
    rollout.interrupted = not finish or bool(done.failures)
