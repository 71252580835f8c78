"""The steps of a roll-out as pyinfra operations: nothing of a step begins before the one before is checked.

pyinfra orders operations by what each host has to do; only an operation that every host shares is a barrier.
The ones here are such barriers, and run once.
"""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from deploy.coordination.deadlines import Deadlines
from deploy.coordination.holding import Given
from deploy.coordination.step_check import StepCheck, watch_s
from deploy.operations.context import fleet
from deploy.operations.locking import lock_of
from deploy.rollout.batches import Step, waiting
from deploy.rollout.plan import Plan
from deploy.rollout.record import Rollout


def steps(rollout: Rollout, plan: Plan) -> Iterator[Step]:
    """For deploy.py: every step in order, checked before the next one begins; the last one before the end."""
    if not plan.steps:
        return
    variables = dict(fleet().hosts[next(iter(plan.observed))])
    if host.data.get("alerts"):
        variables["fleet_alerts_firing"] = host.data.get("alerts")
    stopped = partial(getattr, rollout, "interrupted")
    check = _checks.setdefault(plan.id, StepCheck(fleet(), variables, stopped))
    begun(rollout, check, plan, name="Plan", _run_once=True)
    for step in host.loop(plan.steps):
        yield step
        checked(rollout, check, plan, step, name=f"Activate {step.name} | checks", _run_once=True)


def deadlines_of(rollout: Rollout) -> Deadlines:
    """What keeps this run ahead of the deadlines of its hosts."""
    return _deadlines.setdefault(rollout.id, Deadlines(fleet().inventory))


_deadlines: dict[str, Deadlines] = {}
_checks: dict[str, StepCheck] = {}
"""By the plan's id: pyinfra reads deploy.py once per host, the checks are of the run."""


@operation()
def begun(rollout: Rollout, check: StepCheck, plan: Plan) -> Generator[FunctionCommand, None, None]:
    """Everything is staged everywhere: look at the alerts before the first activation."""
    if not rollout.failed:
        yield FunctionCommand(_begin, (rollout, check, plan), {})


@operation()
def checked(
    rollout: Rollout, check: StepCheck, plan: Plan, step: Step
) -> Generator[FunctionCommand, None, None]:
    """A step is activated everywhere: check it before the next one begins."""
    if not rollout.failed:
        yield FunctionCommand(_check, (rollout, check, plan, step), {})


def _begin(rollout: Rollout, check: StepCheck, plan: Plan) -> None:
    check.begin(plan.monitored(check.fleet.in_group("hub")), lock_of(rollout).put_back)
    _say(check)


def _check(rollout: Rollout, check: StepCheck, plan: Plan, step: Step) -> None:
    seconds = watch_s(check.variables, step, last=step == plan.steps[-1])
    given = [
        Given(entry.host, entry.service, entry.generation)
        for entry in rollout.results.values()
        if entry.waits and entry.generation
    ]
    ahead = waiting(plan.steps, plan.steps.index(step) + 1, check.fleet.hosts)
    failure = check.after(f"step {step.name.strip()}", plan.touched(step), given, seconds, ahead)
    _say(check)
    if failure is not None and not rollout.interrupted:
        rollout.fail(failure)


def _say(check: StepCheck) -> None:
    for text in check.said:
        print(f"  {text}", flush=True)
    check.said.clear()
