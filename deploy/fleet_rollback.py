"""Rolls the fleet back with pyinfra: every host is asked first, then all hosts of a wave go back at once."""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.exceptions import DeployError

from deploy import locking, planning, run, undoing, windows
from deploy.batches import OrderError
from deploy.inventory import fleet
from deploy.release import ACTIVATE_TIMEOUT_S, run_tool
from deploy.rollout import Failure, Rollout, failure_of

WAVES = 2


class FleetRollback:
    """One rollback of the fleet: what every host said of itself, what it answered, which wave it is in."""

    def __init__(self, rollout: Rollout, named: str | None) -> None:
        self.rollout = rollout
        self.statuses = planning.statuses(rollout)
        undoing.require_told(fleet(), self.statuses)
        self.deployment = undoing.chosen(self.statuses, named)
        self.services = undoing.affected(self.statuses, self.deployment)
        self.answers: dict[str, Mapping[str, Any]] = {}
        for name, services in self.services.items():
            for service in services:
                result, now = rollout.result(name, service), self.statuses[name]["services"][service]
                result.generation, result.previous = str(now["current"]), now["previous"]
        self.windows = tuple(name for name in run.windows_targets() if name in self.services)
        where = ", ".join(f"{name} ({', '.join(of)})" for name, of in self.services.items())
        print(f"undoing deployment {self.deployment}: {where}", flush=True)

    def wave(self, number: int) -> tuple[str, ...]:
        """Hosts of a wave (from 0), known once every host was asked."""
        found = undoing.waves(fleet(), self.statuses, self.answers)
        return found[number] if number < len(found) else ()

    def call(self, *, dry_run: bool) -> None:
        """`mt5crs-release undo` on the current host."""
        if not dry_run:
            self._decide()
        arguments = ["undo", "--deployment", self.deployment, "--json", *(["--dry-run"] if dry_run else [])]
        began = time.monotonic()
        answer, text, good = run_tool(arguments, stdin=None, timeout_s=ACTIVATE_TIMEOUT_S)
        self.take(host.name, answer, began, dry_run=dry_run)
        if not good or answer is None:
            step = "ask about the way back" if dry_run else "roll back"
            self.rollout.fail(failure_of(host.name, step, answer, text))

    def play(self, hosts: Sequence[str], *, dry_run: bool) -> None:
        """The same on Windows gateways, all at once, by Ansible."""
        if not dry_run:
            self._decide()
        began = time.monotonic()
        for answer in windows.undo(self.rollout, hosts, self.deployment, dry_run=dry_run):
            self.take(answer.host, answer.document, began, dry_run=dry_run)

    def _decide(self) -> None:
        """Record on the Hub what goes back to what, before the first host does."""
        locking.decide(
            self.rollout,
            lambda lock: lock.decide_to_roll_back(
                undoing.targets(self.answers, (*self.wave(0), *self.wave(1)))
            ),
        )

    def take(self, name: str, answer: Mapping[str, Any] | None, began: float, *, dry_run: bool) -> None:
        """Note what a host said."""
        if answer is None:
            return
        self.answers[name] = answer
        if not dry_run:
            for service, entry in undoing.outcomes(answer):
                self.rollout.undone(name, service, entry, began)


_begun: list[FleetRollback | DeployError] = []


def roll_back(rollout: Rollout, named: str | None) -> None:
    """For rollback.py: undo the deployment `named` (None: the newest) on all hosts of this run."""
    with planning.first:
        if not _begun:
            try:
                _begun.append(FleetRollback(rollout, named))
            except undoing.NothingToUndoError as error:
                _begun.append(run.refusal(rollout, run.not_begun(str(error))))
            except DeployError as refused:
                _begun.append(refused)
    begun = _begun[0]
    if isinstance(begun, DeployError):
        raise begun
    asked(rollout, begun, name="Ask every host")
    if begun.windows:
        asked_on_windows(rollout, begun, name="Ask every host | Windows", _run_once=True)
    for number in host.loop(range(WAVES)):
        undone(rollout, begun, number, name=f"Roll back, wave {number + 1}")
        if begun.windows:
            name = f"Roll back, wave {number + 1} | Windows"
            undone_on_windows(rollout, begun, number, name=name, _run_once=True)


@operation()
def asked(rollout: Rollout, begun: FleetRollback) -> Generator[FunctionCommand, None, None]:
    """Find out whether the host can go back, before any host does."""
    if host.name in begun.services and not rollout.failed:
        yield FunctionCommand(begun.call, (), {"dry_run": True})


@operation()
def asked_on_windows(rollout: Rollout, begun: FleetRollback) -> Generator[FunctionCommand, None, None]:
    """Find out the same of the Windows gateways."""
    if not rollout.failed:
        yield FunctionCommand(begun.play, (begun.windows,), {"dry_run": True})


@operation()
def undone(rollout: Rollout, begun: FleetRollback, wave: int) -> Generator[FunctionCommand, None, None]:
    """Go back, unless a host cannot or has failed to."""
    if host.name in _turn(rollout, begun, wave):
        yield FunctionCommand(begun.call, (), {"dry_run": False})


@operation()
def undone_on_windows(
    rollout: Rollout, begun: FleetRollback, wave: int
) -> Generator[FunctionCommand, None, None]:
    """The Windows gateways of the wave go back, under the same condition."""
    hosts = [name for name in _turn(rollout, begun, wave) if name in begun.windows]
    if hosts:
        yield FunctionCommand(begun.play, (hosts,), {"dry_run": False})


def _turn(rollout: Rollout, begun: FleetRollback, wave: int) -> tuple[str, ...]:
    if rollout.failed or rollout.dry:
        return ()
    try:
        return begun.wave(wave)
    except OrderError as error:
        rollout.fail(Failure("fleet", "roll back", str(error)))
        return ()
