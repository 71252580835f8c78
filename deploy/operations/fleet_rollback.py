"""Rolls the fleet back with pyinfra: each step of `deploy.rollout.undo_steps` on all hosts in turn."""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.exceptions import DeployError

from deploy.coordination.fleet_lock import FleetLock
from deploy.operations import planning, release, run, stepping, windows
from deploy.operations.context import fleet, variables
from deploy.rollout import undo_steps, undoing
from deploy.rollout.batches import OrderError
from deploy.rollout.record import Failure, Rollout
from deploy.rollout.undo_steps import ASK, BACK, HOLD, JUDGE

TITLES = {ASK: "Ask every host", HOLD: "Move back", JUDGE: "Judge", BACK: "Put back"}
"""Names of the operations, and so of the phases of the narration."""


class FleetRollback:
    """One rollback of the fleet: what every host said of itself, what it answered, which were moved."""

    def __init__(self, rollout: Rollout, named: str | None, *, give_back: bool) -> None:
        self.rollout = rollout
        self.give_back = give_back
        self.statuses = planning.statuses(rollout)
        undoing.require_told(fleet(), self.statuses)
        self.deployment = undoing.chosen(self.statuses, named)
        rollout.undoes = self.deployment
        self.services = undoing.affected(self.statuses, self.deployment)
        undoing.require_steps(self.statuses, self.services)
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.moved: set[str] = set()
        for name, services in self.services.items():
            for service in services:
                result, now = rollout.result(name, service), self.statuses[name]["services"][service]
                result.generation, result.previous = undoing.generation_of(now), now["previous"]
        self.windows = tuple(name for name in run.windows_targets() if name in self.services)
        where = ", ".join(f"{name} ({', '.join(of)})" for name, of in self.services.items())
        print(f"undoing deployment {self.deployment}: {where}", flush=True)

    def waves(self, step: str) -> list[tuple[str, ...]]:
        """Linux hosts that take a step together, one wave after the other."""
        hosts = [name for name in self.services if name not in self.windows]
        return [tuple(hosts)] if step in (ASK, JUDGE) else undoing.waves(fleet(), hosts)

    def due(self, name: str, step: str) -> bool:
        """Whether a host is to take this step now."""
        if name not in self.services or (self.rollout.dry and step != ASK):
            return False
        if step == BACK:
            return self.rollout.failed and not self.rollout.lock_lost and name in self.moved
        return not self.rollout.failed and (step != HOLD or self._fits())

    def _fits(self) -> bool:
        """Whether all will be able to talk to each other; noted as the run's failure if not."""
        if not self.answers:
            return True  # pyinfra only looks what there is to do
        try:
            undoing.require_fit(fleet(), self.statuses, self.answers)
        except OrderError as error:
            self.rollout.fail(Failure("fleet", "roll back", str(error)))
        return not self.rollout.failed

    def call(self, step: str) -> None:
        """One step on the current host. A lost call is made again: the host does nothing twice."""
        name, began = host.name, time.monotonic()
        timeout_s = float(variables(name)["fleet_confirm_timeout_s"])
        self._begin(name, step)
        words = undo_steps.arguments(step, self.deployment, timeout_s, give_back=self.give_back)
        answer, text, good = release.run_again(words, timeout_s=release.ACTIVATE_TIMEOUT_S)
        self._take(name, step, answer, text, good=good, since=began)
        if good and step == HOLD:
            for service in self.services[name]:
                generation = self.rollout.result(name, service).generation
                stepping.deadlines_of(self.rollout).waits(name, service, generation, timeout_s)

    def play(self, hosts: Sequence[str], step: str) -> None:
        """The same on Windows gateways, all at once, by Ansible."""
        began = time.monotonic()
        for name in hosts:
            self._begin(name, step)
        answers, failures = windows.undo(hosts, self.deployment, step, give_back=self.give_back)
        for answer in answers:
            document = None if answer.document is None else dict(answer.document)
            self._take(answer.host, step, document, answer.text, good=answer.good, since=began)
        for failure in failures:
            self.rollout.fail(failure)

    def _begin(self, name: str, step: str) -> None:
        if step == HOLD:
            self.moved.add(name)
            undo_steps.begin(self.rollout, name, self.services[name])

    def _take(
        self, name: str, step: str, answer: dict[str, Any] | None, text: str, *, good: bool, since: float
    ) -> None:
        if step == ASK and good and answer is not None:
            self.answers[name] = answer
            for line in undoing.access_told(name, answer):
                print(line, flush=True)
        undo_steps.note(self.rollout, name, step, answer, text, good=good, since=since)

    def decide(self, lock: FleetLock) -> None:
        """Everything is healthy everywhere: whoever comes next finishes it."""
        lock.decide_to_roll_back(undo_steps.held(self.rollout))


_begun: list[FleetRollback | DeployError] = []


def roll_back(rollout: Rollout, named: str | None, access: str | None) -> None:
    """For rollback.py: undo the deployment `named` (None: the newest) on all hosts of this run.

    access: `back` takes the gateways' access lists back as well.
    """
    with planning.first:
        if not _begun:
            try:
                give_back = undoing.gives_back(access)
                _begun.append(FleetRollback(rollout, named, give_back=give_back))
            except undoing.NothingToUndoError as error:
                _begun.append(run.refusal(rollout, run.not_begun(str(error))))
            except DeployError as refused:
                _begun.append(refused)
    begun = _begun[0]
    if isinstance(begun, DeployError):
        raise begun
    for step in host.loop((ASK, HOLD, JUDGE)):
        _everywhere(begun, step)
    windows.confirm(rollout, begun.windows, begun.decide)
    release.confirmed(rollout, begun.decide, name="Confirm")
    _everywhere(begun, BACK)


def _everywhere(begun: FleetRollback, step: str) -> None:
    if begun.windows:
        taken_on_windows(begun, step, name=f"{TITLES[step]} | Windows", _run_once=True)
    for number, hosts in host.loop(enumerate(begun.waves(step), 1)):
        taken(begun, step, hosts, name=f"{TITLES[step]} | {number}")


@operation()
def taken(begun: FleetRollback, step: str, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """One step on a Linux host."""
    if host.name in hosts and begun.due(host.name, step):
        yield FunctionCommand(begun.call, (step,), {})


@operation()
def taken_on_windows(begun: FleetRollback, step: str) -> Generator[FunctionCommand, None, None]:
    """One step on the Windows gateways."""
    hosts = [name for name in begun.windows if begun.due(name, step)]
    if hosts:
        yield FunctionCommand(begun.play, (hosts, step), {})
