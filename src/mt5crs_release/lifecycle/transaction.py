"""How a change begins, how long it waits to be confirmed, and how it ends well: writes to ``state.json``.

How it ends otherwise is :mod:`mt5crs_release.lifecycle.recovery`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.generations.state import Generation, Transaction
from mt5crs_release.lifecycle import changes, watchdog
from mt5crs_release.storage.journal import timestamp
from mt5crs_release.storage.lock import boot_clock, boot_id


def begin(
    session: Session,
    entry: Generation,
    confirm_timeout_s: float,
    *,
    rollback: bool,
    undoes: str | None = None,
    together: Sequence[str] = (),
    deployed: tuple[str | None, str] | None = None,
) -> Transaction:
    """Open the transaction that is to end with ``entry`` (not saved yet).

    :param undoes: the deployment that is undone with it
    :param together: the other services that go back with it
    :param deployed: the deployment that it is part of, and when
    :raises FailedError: systemd refused to look after it; nothing was changed
    """
    previous = session.state.current
    session.changes = changes.between(
        None if previous is None else session.paths.generation(previous), session.paths.generation(entry.name)
    )
    # Armed before anything is written: from here on no death of this run leaves the host half-way.
    watchdog.arm(session.systemd, session.host, session.service)
    transaction = Transaction(
        entry.name,
        previous,
        timestamp(),
        confirm_timeout_s,
        rollback=rollback,
        boot_id=boot_id(),
        deployment_before=entry.deployment,
        deployed_at_before=entry.deployed_at,
        undoes=undoes,
        together=list(together),
        deployment=None if deployed is None else deployed[0],
    )
    if deployed is not None:
        entry.deployment, entry.deployed_at = deployed
    entry.left_because = None
    session.state.desired = entry.name
    session.state.transaction = transaction
    return transaction


def set_deadline(transaction: Transaction, seconds: float) -> None:
    """Let ``transaction`` revert by itself in ``seconds`` (not saved yet)."""
    transaction.confirm_timeout_s = seconds
    transaction.deadline = boot_clock() + seconds
    until = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    transaction.deadline_at = until.isoformat(timespec="seconds").replace("+00:00", "Z")


def wait(session: Session, content: Content, transaction: Transaction, seconds: float) -> None:
    """Let what was found healthy wait ``seconds`` for its confirmation (not saved yet)."""
    set_deadline(transaction, seconds)
    transaction.unjudged_since = None
    transaction.restarts = {name: unit.restarts for name, unit in session.systemd.look(content.start).items()}


def end_confirmed(session: Session, transaction: Transaction) -> None:
    """Confirm the generation of ``transaction``: the one write that ends it."""
    name = transaction.generation
    session.advance(name, "confirm")
    history = session.state.history
    if transaction.rollback and name in history:
        del history[len(history) - history[::-1].index(name) :]
    else:
        history.append(name)
    session.state.transaction = None
    session.state.last_left = None
    session.state.came_from, session.state.undid = transaction.previous, transaction.undoes
    session.save()
    session.record("confirmed", generation=name)
    watchdog.disarm(session.systemd, session.service)
