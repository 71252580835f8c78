"""Windows gateways in a pyinfra run: pyinfra only does Linux, so windows.yml is played for them, in phases.

They are part of the run's plan and take their turn in its steps: staged before anything is activated,
provisional until everything is healthy, confirmed with the others, put back with the others.
"""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

from gevent.lock import Semaphore
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.exceptions import DeployError, OperationError

from deploy.coordination import step_check
from deploy.coordination.fleet_lock import FleetLock
from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.operations import locking
from deploy.operations.context import fleet
from deploy.remote import windows_play
from deploy.remote.release_call import LOOK, ROLLBACK
from deploy.remote.windows_play import Played
from deploy.rollout.answer import ToolAnswer, apply
from deploy.rollout.batches import Step
from deploy.rollout.plan import Plan
from deploy.rollout.record import Failure, Rollout

SERVICE = "gateway"
PHASE = "Windows gateways"
STEP_S = 60
"""Time that a step of the others may take; nobody extends the deadline of a Windows gateway on the way."""
_unchanged: list[bool] = []
"""Whether each preparation of this process found everything as it should be."""


def targets(of: Fleet, limit: Sequence[str], exclude: Sequence[str]) -> tuple[str, ...]:
    """Windows gateways that a run with these --limit and --exclude patterns is for."""
    return tuple(
        host
        for host in of.in_group(WINDOWS)
        if host in of.in_group("gateway")
        and (not limit or chosen_by(limit, host, of))
        and not chosen_by(exclude, host, of)
    )


def chosen_by(patterns: Sequence[str], host: str, of: Fleet) -> bool:
    """Whether a host is named by one of these patterns or groups; the environment's name means all."""
    groups = [of.environment, *(group for group, members in of.groups.items() if host in members)]
    return any(word in groups or fnmatch(host, word) for word in patterns)


def statuses(hosts: Sequence[str]) -> dict[str, dict[str, Any] | Failure]:
    """The release tool's status of each Windows gateway, or why it could not say."""
    if not hosts:
        return {}
    played = windows_play.run(fleet().inventory, hosts, "observe", {})
    reasons = {one.host: one.reason for one in played.troubles}
    told = {host: said for host, said in played.statuses.items() if host not in reasons}
    return {host: told[host] if host in told else _silent(host, reasons.get(host, "")) for host in hosts}


def _silent(host: str, reason: str) -> Failure:
    remedy = f"check the host and the network, or leave it out with --exclude {host}"
    return Failure(host, LOOK, reason or "no answer", remedy)


def look(rollout: Rollout, hosts: Sequence[str], phase: str, known: Mapping[str, Any]) -> None:
    """In a dry run: say what a phase would change. pyinfra reads deploy files once per host; asked once."""
    if not hosts or not rollout.dry:
        return
    with _first:
        if phase not in _looked:
            played = windows_play.run(fleet().inventory, hosts, phase, known, check=True)
            failed = {one.host: one.why for one in played.answers if not one.good}
            failed |= {one.host: one.reason for one in played.troubles}
            _looked[phase] = "; ".join(f"{host}: {why}" for host, why in failed.items())
            for host in [] if failed else hosts:
                what = ", ".join(played.changed.get(host, ())) or "nothing"
                print(f"{host}: would change: {what}", flush=True)
    if _looked[phase]:
        raise DeployError(f"the Windows gateways cannot be looked at ({_looked[phase]}). Nothing was changed")


_first = Semaphore()
_looked: dict[str, str] = {}
"""Why a phase could not be looked at, by phase; empty: it could."""


# --- the phases of deploy.py and rollback.py ----------------------------------------------------------------


def prepare(rollout: Rollout, hosts: Sequence[str]) -> None:
    """Baseline and staging, before anything else; what runs is not touched."""
    look(rollout, hosts, "prepare", {})
    if hosts and not rollout.dry:
        prepared(rollout, hosts, name=PHASE, _run_once=True)


def activate(rollout: Rollout, plan: Plan, step: Step) -> None:
    """Run the staged generations, provisionally, of those whose turn is in this step."""
    hosts = busy(plan, [host for host in step.hosts if host in fleet().in_group(WINDOWS)])
    if hosts and step.kind == SERVICE and not rollout.dry:
        name = f"Activate {step.name} | Windows"
        activated(rollout, plan, hosts, name=name, _run_once=True)


def confirm(
    rollout: Rollout, hosts: Sequence[str], decide: Callable[[FleetLock], None] | None = None
) -> None:
    """Make the provisional generations the ones to stay; `decide` records that it is to be finished."""
    if hosts and not rollout.dry:
        confirmed(rollout, hosts, decide, name=f"Confirm {SERVICE} | Windows", _run_once=True)


def put_back(rollout: Rollout, hosts: Sequence[str]) -> None:
    """When anything failed anywhere: return to what ran before."""
    if hosts and not rollout.dry:
        reverted(rollout, hosts, name="Put back | Windows", _run_once=True)


def ask_rollback(rollout: Rollout, hosts: Sequence[str], to: str | None, verb: str = ROLLBACK) -> None:
    """Find out whether they can go back, before any host does; `verb`: as `Service.goes_back_by`."""
    look(rollout, hosts, verb, to_known(to))
    if hosts and not rollout.dry:
        asked(rollout, hosts, to, verb, name=f"Ask about {SERVICE} | Windows", _run_once=True)


def rollback(rollout: Rollout, hosts: Sequence[str], to: str | None, verb: str = ROLLBACK) -> None:
    """Go back, unless some host cannot."""
    if hosts and not rollout.dry:
        rolled_back(rollout, hosts, to, verb, name=f"Roll back {SERVICE} | Windows", _run_once=True)


def to_known(to: str | None) -> dict[str, str]:
    """What the phase `rollback` is told."""
    return {"to": to} if to else {}


def busy(plan: Plan, hosts: Sequence[str]) -> list[str]:
    """Those of the hosts on which the plan activates or starts the gateway."""
    return [host for host in hosts if (work := plan.work.get((host, SERVICE))) is not None and work.busy]


def nothing_changed(phase: str) -> bool:
    """Whether this phase found everything as it should be."""
    return phase == PHASE and _unchanged == [True]


@operation()
def prepared(rollout: Rollout, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """A failure ends the run: nothing has been activated."""
    yield FunctionCommand(_prepare, (rollout, tuple(hosts)), {})


@operation()
def activated(rollout: Rollout, plan: Plan, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """A failure is noted, not raised: what was activated has to be put back first."""
    if not rollout.failed:
        yield FunctionCommand(_activate, (rollout, plan, tuple(hosts)), {})


@operation()
def confirmed(
    rollout: Rollout, hosts: Sequence[str], decide: Callable[[FleetLock], None] | None
) -> Generator[FunctionCommand, None, None]:
    """Over a new connection, which proves that the host can still be reached."""
    waiting = provisional(rollout, hosts)
    if waiting and not rollout.failed:
        yield FunctionCommand(_settle, (rollout, "confirm", waiting, decide), {})


@operation()
def reverted(rollout: Rollout, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """After everything that depends on a gateway has been put back."""
    waiting = touched(rollout, hosts)
    if waiting and rollout.failed:
        yield FunctionCommand(_settle, (rollout, "put_back", waiting), {})


@operation()
def asked(
    rollout: Rollout, hosts: Sequence[str], to: str | None, verb: str
) -> Generator[FunctionCommand, None, None]:
    """Changes nothing."""
    yield FunctionCommand(_ask_rollback, (rollout, tuple(hosts), to, verb), {})


@operation()
def rolled_back(
    rollout: Rollout, hosts: Sequence[str], to: str | None, verb: str
) -> Generator[FunctionCommand, None, None]:
    """Only when every host has said that it can."""
    if not rollout.failed:
        yield FunctionCommand(_roll_back, (rollout, tuple(hosts), to, verb), {})


def _prepare(rollout: Rollout, hosts: Sequence[str]) -> None:
    began = time.monotonic()
    played = windows_play.run(fleet().inventory, hosts, "prepare", {})
    _note(rollout, played, "prepare")
    _unchanged.append(not played.changed)
    failed = {failure.host for failure in rollout.failures}
    for host in hosts:
        outcome = "failed" if host in failed else "changed" if played.changed.get(host) else "unchanged"
        rollout.spent(host, "", "baseline and stage", began, outcome)
    if not played.good:
        raise OperationError("the Windows gateways could not be prepared; the reason is below")


def _activate(rollout: Rollout, plan: Plan, hosts: Sequence[str]) -> None:
    todo = {host: plan.work[host, SERVICE].todo for host in hosts}
    for host in hosts:
        result = rollout.result(host, SERVICE)
        result.generation, result.previous = todo[host].generation, todo[host].previous
        # Noted before the call: if the connection is lost in it, the host may have gone ahead.
        result.state = "provisional" if todo[host].activate else result.state
    known: dict[str, Any] = {
        "windows_needed": [host for host in hosts if todo[host].activate],
        "windows_down": {host: list(todo[host].start) for host in hosts if todo[host].start},
        "fleet_plan": {"watched_s": watched_s(plan), "deployment": rollout.id},
    }
    played = windows_play.run(fleet().inventory, hosts, "activate", known)
    _note(rollout, played, "activate")
    for host in hosts:
        if todo[host].start and not todo[host].activate and played.changed.get(host):
            rollout.result(host, SERVICE).state, rollout.result(host, SERVICE).changed = "started", True


def watched_s(plan: Plan) -> float:
    """How much longer than `fleet_confirm_timeout_s` a Windows gateway waits to be confirmed, in seconds."""
    watched = step_check.watched_s(plan.steps, fleet().hosts[next(iter(plan.observed))])
    return watched + STEP_S * len(plan.steps)


def provisional(rollout: Rollout, hosts: Sequence[str]) -> dict[str, str]:
    """Host → generation, for those that this run has made provisional."""
    results = {host: rollout.result(host, SERVICE) for host in hosts}
    return {host: result.generation for host, result in results.items() if result.state == "provisional"}


def touched(rollout: Rollout, hosts: Sequence[str]) -> dict[str, str]:
    """Host → generation, for those that are put back when the run fails."""
    return {host: result.generation for host in hosts for result in rollout.touched(host)}


def _settle(
    rollout: Rollout,
    phase: str,
    waiting: Mapping[str, str],
    decide: Callable[[FleetLock], None] | None = None,
) -> None:
    """Confirm, or put back, what this run made provisional."""
    if decide is not None:
        locking.decide(rollout, decide)
    known = {"windows_provisional": dict(waiting)}
    _note(rollout, windows_play.run(fleet().inventory, list(waiting), phase, known), phase)


def undo(
    hosts: Sequence[str], deployment: str, step: str, *, give_back: bool = False
) -> tuple[list[ToolAnswer], list[Failure]]:
    """Have these hosts take one step of undoing a deployment; their answers, and what else went wrong."""
    known = {"windows_deployment": deployment, "windows_undo_step": step}
    known |= {"access": "back"} if give_back else {}
    played = windows_play.run(fleet().inventory, hosts, "undo", known)
    return played.answers, _troubles(played, "undo")


def _ask_rollback(rollout: Rollout, hosts: Sequence[str], to: str | None, verb: str) -> None:
    played = windows_play.run(fleet().inventory, hosts, verb, to_known(to), check=True)
    played.answers = [replace(answer, asked=True) for answer in played.answers]
    _note(rollout, played, verb)
    for line in (answer.told_at_once for answer in played.answers if answer.told_at_once):
        print(line, flush=True)


def _roll_back(rollout: Rollout, hosts: Sequence[str], to: str | None, verb: str) -> None:
    if verb == ROLLBACK:
        locking.decide(rollout, lambda lock: lock.decide_to_roll_back(rollout.way_back))
    _note(rollout, windows_play.run(fleet().inventory, hosts, verb, to_known(to)), verb)


def _note(rollout: Rollout, played: Played, phase: str) -> None:
    """Take what the hosts answered into the record of the run."""
    for answer in played.answers:
        apply(rollout, answer)
    for failure in _troubles(played, phase):
        rollout.fail(failure)


def _troubles(played: Played, phase: str) -> list[Failure]:
    remedy = f"run it by hand to see more: ansible-playbook … {windows_play.PLAYBOOK} --tags {phase} -vv"
    return [Failure(one.host, one.task, one.reason, remedy) for one in played.troubles]
