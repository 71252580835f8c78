"""Rolls the fleet back with pyinfra: every host is asked first, then all hosts of a wave go back at once."""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any

from gevent.lock import Semaphore
from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from deploy import locking, planning, run, undoing
from deploy.batches import OrderError
from deploy.inventory import fleet
from deploy.release import ACTIVATE_TIMEOUT_S, run_tool
from deploy.rollout import Failure, Rollout, failure_of

WAVES = 2


class FleetRollback:
    """One rollback of the fleet: what every host said of itself, what it answered, which wave it is in."""

    def __init__(self, rollout: Rollout, named: str | None) -> None:
        self.rollout = rollout
        self.statuses = planning.statuses()
        self.deployment = undoing.chosen(self.statuses, named)
        self.services = undoing.affected(self.statuses, self.deployment)
        self.answers: dict[str, Mapping[str, Any]] = {}
        for name, services in self.services.items():
            for service in services:
                result, now = rollout.result(name, service), self.statuses[name]["services"][service]
                result.generation, result.previous = str(now["current"]), now["previous"]
        where = ", ".join(f"{name} ({', '.join(of)})" for name, of in self.services.items())
        print(f"undoing deployment {self.deployment}: {where}", flush=True)

    def wave(self, number: int) -> tuple[str, ...]:
        """Hosts of a wave (from 0), known once every host was asked."""
        found = undoing.waves(fleet(), self.statuses, self.answers)
        return found[number] if number < len(found) else ()

    def call(self, *, dry_run: bool) -> None:
        """`mt5crs-release undo` on the current host."""
        lock = locking.lock_of(self.rollout)
        if not dry_run:
            with _deciding:
                if not lock.decision:
                    lock.decide_to_roll_back(undoing.targets(self.answers, (*self.wave(0), *self.wave(1))))
        arguments = ["undo", "--deployment", self.deployment, "--json", *(["--dry-run"] if dry_run else [])]
        began = time.monotonic()
        answer, text, good = run_tool(arguments, stdin=None, timeout_s=ACTIVATE_TIMEOUT_S)
        if answer is not None:
            self.answers[host.name] = answer
            if not dry_run:
                for service, entry in undoing.outcomes(answer):
                    self.rollout.undone(host.name, service, entry, began)
        if not good or answer is None:
            step = "ask about the way back" if dry_run else "roll back"
            self.rollout.fail(failure_of(host.name, step, answer, text))


_deciding = Semaphore()  # no host goes ahead before the decision is recorded
_begun: list[FleetRollback | str] = []


def roll_back(rollout: Rollout, named: str | None) -> None:
    """For rollback.py: undo the deployment `named` (None: the newest) on all hosts of this run."""
    beyond = run.windows_targets()
    if beyond:
        inventory = fleet().inventory
        raise run.refusal(
            rollout,
            f"the Windows gateways {', '.join(beyond)} cannot be rolled back together with the others by "
            f"pyinfra; use `ansible-playbook -i {inventory} rollback.yml --tags fleet`, or leave them out "
            "with --exclude. Nothing was changed",
        )
    with planning.first:
        if not _begun:
            try:
                _begun.append(FleetRollback(rollout, named))
            except undoing.NothingToUndoError as error:
                _begun.append(str(error))
    begun = _begun[0]
    if isinstance(begun, str):
        raise run.refusal(rollout, begun)
    asked(rollout, begun, name="Ask every host")
    for number in host.loop(range(WAVES)):
        undone(rollout, begun, number, name=f"Roll back, wave {number + 1}")


@operation()
def asked(rollout: Rollout, begun: FleetRollback) -> Generator[FunctionCommand, None, None]:
    """Find out whether the host can go back, before any host does."""
    if host.name in begun.services and not rollout.failed:
        yield FunctionCommand(begun.call, (), {"dry_run": True})


@operation()
def undone(rollout: Rollout, begun: FleetRollback, wave: int) -> Generator[FunctionCommand, None, None]:
    """Go back, unless a host cannot or has failed to."""
    if rollout.failed or rollout.dry:
        return
    try:
        hosts = begun.wave(wave)
    except OrderError as error:
        rollout.fail(Failure("fleet", "roll back", str(error)))
        return
    if host.name in hosts:
        yield FunctionCommand(begun.call, (), {"dry_run": False})
