"""The plan of a pyinfra run: every host is asked at once, the plan is made, shown, kept or compared.

pyinfra reads deploy.py once per host; the first to get here does it for all, the others wait.
"""
# mypy: disable-error-code="misc"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gevent
from gevent.lock import Semaphore
from pyinfra import host, state
from pyinfra.api.exceptions import DeployError
from pyinfra.context import ctx_host

from deploy.operations import release, run, windows
from deploy.operations.context import fleet, variables
from deploy.remote import holdings
from deploy.rollout import distribution
from deploy.rollout import plan as plans
from deploy.rollout.batches import OrderError
from deploy.rollout.generation import BundleError
from deploy.rollout.plan import Plan, PlanError
from deploy.rollout.record import Failure, Rollout

first = Semaphore()
_made: list[Plan | DeployError] = []


def plan(rollout: Rollout) -> Plan:
    """What this run is going to do. DeployError when it must not begin; nothing was changed then."""
    with first:
        if not _made:
            try:
                _made.append(_make(rollout))
            except DeployError as refused:
                _made.append(refused)
    found = _made[0]
    if isinstance(found, DeployError):
        raise found
    return found


def statuses(rollout: Rollout) -> Mapping[str, Mapping[str, Any]]:
    """The release tool's status of every host of this run, asked in parallel.

    DeployError when a host cannot say; cause and remedy are in the record of the run.
    """

    def ask(one: Any) -> tuple[str, dict[str, Any] | Failure]:
        with ctx_host.use(one):
            return one.name, release.status()

    asked = [gevent.spawn(ask, one) for one in state.inventory.get_active_hosts()]
    others = gevent.spawn(windows.statuses, run.windows_targets())
    gevent.joinall([*asked, others], raise_error=True)
    answered: dict[str, Mapping[str, Any] | Failure] = dict(greenlet.value for greenlet in asked)
    answered |= others.value
    # In the inventory's order, which is the order of the steps.
    answered = {name: answered[name] for name in fleet().hosts if name in answered}
    failures = [said for said in answered.values() if isinstance(said, Failure)]
    if failures:
        raise run.refusal(rollout, *failures)
    return {name: said for name, said in answered.items() if not isinstance(said, Failure)}


def _make(rollout: Rollout) -> Plan:
    seen = statuses(rollout)
    policy = plans.policy_of(variables(next(iter(seen))))
    if host.data.get("strategy"):
        policy = replace(policy, strategy=str(host.data.get("strategy")))
    try:
        made = plans.make(fleet(), seen, policy=policy)
        named = host.data.get("plan")
        if named:
            plans.require_unmoved(str(named), made)
    except (BundleError, OrderError, PlanError) as error:
        raise run.refusal(rollout, run.not_begun(str(error))) from None
    release.use(made, seen)
    for name, status in seen.items():
        rollout.seen(name, status)
    rollout.strategy, rollout.plan = made.strategy, made.id
    rollout.steps = [{"name": step.name, "hosts": list(step.hosts)} for step in made.steps]
    if rollout.dry:
        plans.save(made)
        rollout.foretell(plans.foretold(made))
    told = plans.beside(seen)
    if rollout.dry or made.steps:
        consequences = holdings.consequences_of(made, seen, fleet().inventory)
        told = [*plans.shown(made), *distribution.told(made, fleet()), *consequences, *told]
    if told:
        print("\n".join(told), flush=True)
    return made
