"""The fleet's lock in a pyinfra run: taken before anything changes, by a run that has something to do."""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

from collections.abc import Callable, Generator

from gevent.lock import Semaphore
from pyinfra import host, state
from pyinfra.api import FunctionCommand, operation
from pyinfra.context import ctx_host

from deploy.coordination.fleet_lock import FleetLock, LockError, hub_of
from deploy.operations.context import fleet
from deploy.rollout.record import Failure, Rollout

NAME = "Lock"
_LOOKING = (NAME, "Plan", "Put back", "Ask", "Back up")
_locks: dict[str, FleetLock] = {}


def lock_of(rollout: Rollout) -> FleetLock:
    """The lock of this run, taken or not."""
    return _locks.setdefault(rollout.id, FleetLock(hub_of(fleet()), rollout.id))


def decide(rollout: Rollout, record: Callable[[FleetLock], None]) -> None:
    """Have the decision of this run recorded, once; no host goes ahead before it is."""
    lock = lock_of(rollout)
    with _deciding:
        if not lock.decision:
            record(lock)


_deciding = Semaphore()


def take(rollout: Rollout, *, last: bool) -> None:
    """For deploy.py: before anything is changed, and (last) once the Hub has its release tool."""
    if host.data.get("lock") == "none":
        lock_of(rollout).hub = None
    taken(rollout, last, name=f"{NAME}{' again' if last else ''}", _run_once=True)


@operation()
def taken(rollout: Rollout, last: bool) -> Generator[FunctionCommand, None, None]:
    """Take the lock unless it is held or nothing is to be done."""
    if not rollout.failed:
        yield FunctionCommand(_take, (rollout, last), {})


def _take(rollout: Rollout, last: bool) -> bool:
    """Take the lock; False ends the run here, because baseline does not ask whether anything has failed."""
    lock = lock_of(rollout)
    if not _anything_to_do(rollout):
        return True
    try:
        lock.take(rollout, fleet(), last=last)
    except LockError as error:
        rollout.fail(Failure("fleet", "take the lock", str(error)))
        return False
    for line in lock.said:
        print(line, flush=True)
    lock.said.clear()
    return True


def _anything_to_do(rollout: Rollout) -> bool:
    """Whether any operation has a command, or the Hub tells of a deployer; else this run needs no lock."""
    if rollout.deployer_seen or rollout.action == "rollback":
        return True  # what a rollback of the fleet does is known only once every host was asked
    for one in state.inventory.get_active_hosts():
        with ctx_host.use(one):
            for op_hash, data in state.ops[one].items():
                names = ", ".join(state.get_op_meta(op_hash).names)
                if not names.startswith(_LOOKING) and data.operation_meta.will_change:
                    return True
    return False
