"""The backup before a pyinfra run changes anything: once, for all hosts, if the plan has something to do."""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import time
from collections.abc import Generator

from pyinfra.api import FunctionCommand, operation

from deploy.backup.before import backed_up
from deploy.operations.context import fleet
from deploy.rollout.plan import Plan
from deploy.rollout.record import Failure, Rollout


def back_up(rollout: Rollout, plan: Plan) -> None:
    """For deploy.py: before anything is staged."""
    taken(rollout, plan, name="Back up", _run_once=True)


@operation()
def taken(rollout: Rollout, plan: Plan) -> Generator[FunctionCommand, None, None]:
    """Back the fleet up, unless nothing is to be done or nothing runs yet."""
    if plan.in_service and not rollout.failed:
        yield FunctionCommand(_take, (rollout, plan), {})


def _take(rollout: Rollout, plan: Plan) -> bool:
    """False ends the run here: nothing was changed yet."""
    began = time.monotonic()
    said, refused = backed_up(fleet(), plan.in_service, rollout.who)
    for line in said:
        print(line, flush=True)
    if said or refused:
        hub = next(iter(fleet().in_group("hub")), "")
        rollout.spent(hub, "", "backup", began, "failed" if refused else "changed")
    if refused:
        rollout.fail(Failure("fleet", "back up", refused))
    return not refused
