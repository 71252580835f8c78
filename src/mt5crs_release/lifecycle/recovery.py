"""Going back: the one way a generation is left that was not confirmed, whoever asks for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mt5crs_release import signals
from mt5crs_release.desired.name import plain
from mt5crs_release.errors import FailedError, ReleaseError
from mt5crs_release.generations import access, before, machine, state
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.generations.state import ServiceState, Transaction
from mt5crs_release.lifecycle import health, standby, watchdog
from mt5crs_release.lifecycle.dependence import DEPENDENT
from mt5crs_release.lifecycle.switch import switch
from mt5crs_release.lifecycle.transaction import end_confirmed
from mt5crs_release.storage.lock import boot_clock, boot_id

_SWITCH_TRIES = 3
_SWITCH_PAUSE_S = 0.2
GOING_BACK = "going back: "
"""How the phases of a revert begin in the lock's record."""


def pending_event(
    session: Session, transaction: Transaction, *, boot: bool = False
) -> tuple[str, str] | None:
    """Return what must happen to an open transaction found at the start of a run: event and reason.

    ``None``: it is provisional and its time has not come. Changes nothing.
    """
    current = session.state.generations[transaction.generation].state
    if current == machine.STANDBY:
        return "interrupted", "the run that compared it in standby died; nothing had been switched"
    if current == machine.ACTIVATING:
        return "interrupted", "the run that activated it died"
    if current == machine.REVERTING:
        return "retry", transaction.reason or "its revert was interrupted"
    if session.pointer() != transaction.generation:
        return "revert", "going back from it had begun but could not be recorded"
    if boot or transaction.boot_id != boot_id():
        return "boot", "the host was rebooted before it was confirmed"
    if transaction.deadline is not None and boot_clock() >= transaction.deadline:
        return "deadline", f"nobody confirmed it within {transaction.confirm_timeout_s:g} s"
    others = _others(session, transaction)
    if transaction.undoes is not None and any(
        other.transaction is None and other.runs(transaction.undoes) for other in others
    ):
        return "revert", "another service of this host went back from the rollback that both were part of"
    return None


def _others(session: Session, transaction: Transaction) -> Iterator[ServiceState]:
    """Read the state of what goes back together with this; one that cannot be read says nothing."""
    for name in transaction.together:
        with contextlib.suppress(ReleaseError):
            yield state.load(name, session.host.service(name).state)


def _is_agreed(session: Session, transaction: Transaction) -> bool:
    """Tell whether an undo's decision has been made: all were healthy, and the first one is confirmed."""
    provisional = session.state.generations[transaction.generation].state == machine.PROVISIONAL
    if transaction.undoes is None or transaction.unjudged_since is not None or not provisional:
        return False
    return any(other.undid == transaction.undoes for other in _others(session, transaction))


def recover(session: Session, *, boot: bool = False, forced: bool = False) -> dict[str, Any] | None:
    """Finish or undo what an earlier run left; return what was done, ``None`` when nothing was pending.

    :raises FailedError: it could not be undone MAX_ATTEMPTS times
    """
    transaction = session.state.transaction
    if transaction is None:
        standby.clear(session, boot=boot)
        if session.lock.dead_owner is not None:
            # It may have died just before it began, or after it had ended, a change.
            watchdog.disarm(session.systemd, session.service)
        return None
    if _is_agreed(session, transaction):
        with contextlib.suppress(ReleaseError):  # then both still count, which the next deployment sees
            before.take_effect(session, session.content(transaction.generation))
        end_confirmed(session, transaction)
        return {
            "action": "confirmed",
            "generation": transaction.generation,
            "state": machine.CONFIRMED,
            "reason": "a service that it was rolled back with is confirmed",
            "restored_healthy": None,
        }
    event = pending_event(session, transaction, boot=boot)
    if event is None:
        return None
    if transaction.attempts >= machine.MAX_ATTEMPTS and not forced:
        watchdog.disarm(session.systemd, session.service)
        raise FailedError(
            f"{session.service}: going back from {transaction.generation} was tried "
            f"{transaction.attempts} times and did not succeed",
            remedy="see journal.jsonl and the disk (df, dmesg), mend the cause, then "
            f"`mt5crs-release recover {session.service} --force`",
        )
    if session.state.generations[transaction.generation].state == machine.STANDBY:
        return leave_standby(session, *event, boot=boot)
    standby.clear(session, boot=boot)
    if event[0] == "interrupted" and not boot and _nothing_was_changed(session, transaction):
        session.advance(transaction.generation, "interrupted")
        ending = machine.revert_ending("interrupted", proven=_proven(session, transaction))
        return _finish(session, transaction, ending, event[1], None)
    return revert(session, *event, boot=boot)


def _nothing_was_changed(session: Session, transaction: Transaction) -> bool:
    """Tell whether the run that died had not begun to switch: then nothing needs a restart.

    The pointer moves first; if it is where it was, only a run that was going back already can have moved it.
    """
    owner = session.lock.dead_owner
    if owner is None or str(owner.get("phase", GOING_BACK)).startswith(GOING_BACK):
        return False
    return session.pointer() == transaction.previous


def revert(session: Session, event: str, reason: str, *, boot: bool = False) -> dict[str, Any]:
    """Leave the generation of the open transaction and go back to what ran before it.

    The health of that is waited for, unless others go back with it: what it needs may come after it. In a
    deployment the host is asked for it at the end (:mod:`mt5crs_release.lifecycle.check`).

    :param event: what the table of transitions calls the cause
    :raises FailedError: systemd does not answer; the next run takes it up again
    """
    signals.ignore()
    session.phase_prefix = GOING_BACK
    session.enter("begun")
    transaction = session.state.transaction
    if transaction is None:
        raise FailedError("nothing is pending", remedy="see `mt5crs-release status`")
    name = transaction.generation
    session.advance(name, event)
    if event != "retry":
        transaction.event, transaction.reason = event, reason
    transaction.attempts += 1
    # A full disk must not keep the host from going back: what is on disk now says "go back" as well.
    with contextlib.suppress(OSError):
        session.save()
        session.record("reverting", generation=name, to=transaction.previous, reason=reason)
    leaving = session.content(name)
    entering = None if transaction.previous is None else session.content(transaction.previous)
    of_a_deployment = transaction.deployment is not None and plain(session.service) in DEPENDENT
    together = transaction.undoes is not None or of_a_deployment
    complaints = _let_in_as_before(session, transaction)
    complaints += _switch_back(session, leaving, entering, boot=boot, queued=together)
    report = None
    if entering is not None and not boot and not together:
        policy = replace(entering.health, min_healthy_s=min(entering.health.min_healthy_s, 0.5))
        report = health.watch(session, entering, policy)
    ending = machine.revert_ending(transaction.event or event, proven=_proven(session, transaction))
    return _finish(session, transaction, ending, reason, report, complaints)


def leave_standby(session: Session, event: str, reason: str, *, boot: bool = False) -> dict[str, Any]:
    """Give up a candidate that was being compared. What runs was never touched and is not touched now.

    :param event: what the table of transitions calls the cause
    :raises FailedError: systemd does not answer; the next run takes it up again
    """
    signals.ignore()
    session.phase_prefix = GOING_BACK
    transaction = session.state.transaction
    if transaction is None:
        raise FailedError("nothing is pending", remedy="see `mt5crs-release status`")
    transaction.attempts += 1
    with contextlib.suppress(OSError):  # the count of attempts; a full disk must not keep a standby alive
        session.save()
    standby.clear(session, boot=boot)
    ending = machine.standby_ending(event, proven=_proven(session, transaction))
    return _finish(session, transaction, ending, reason, None)


def _proven(session: Session, transaction: Transaction) -> bool:
    return session.state.generations[transaction.generation].confirmed_at is not None


def _let_in_as_before(session: Session, transaction: Transaction) -> list[str]:
    """Let the access list of before count again, first: what runs again needs it. Return what went wrong."""
    try:
        access.end(session, transaction, confirmed=False)
    except (ReleaseError, OSError) as error:
        return [f"WHO MAY CONNECT IS STILL AS DEPLOYED: {error}"]
    return []


def _switch_back(
    session: Session, leaving: Content, entering: Content | None, *, boot: bool, queued: bool
) -> list[str]:
    """Switch, and again when the disk refuses: what runs now is not to stay for one moment of a full disk."""
    for attempt in range(1, _SWITCH_TRIES + 1):
        try:
            before.forget(session)
            return switch(session, leaving, entering, boot=boot, queued=queued, back=True)
        except OSError as error:
            if attempt == _SWITCH_TRIES:
                raise FailedError(
                    f"{session.service} could not leave {leaving.name}: {error.strerror}",
                    remedy="free disk space or mend the disk (df, dmesg); the host tries again by itself, "
                    f"or run `mt5crs-release recover {session.service} --force`",
                ) from None
            time.sleep(_SWITCH_PAUSE_S)
    return []


def _finish(
    session: Session,
    transaction: Transaction,
    event: str,
    reason: str,
    report: health.Report | None,
    complaints: list[str] | None = None,
) -> dict[str, Any]:
    name = transaction.generation
    ended = session.advance(name, event)
    entry = session.state.generations[name]
    entry.left_because = reason
    if ended == machine.CONFIRMED:
        # What brought it stays what brought it: an attempt that came to nothing is none to be undone.
        entry.deployment, entry.deployed_at = transaction.deployment_before, transaction.deployed_at_before
    session.state.current = transaction.previous
    session.state.desired = transaction.previous
    session.state.last_left = name
    session.state.transaction = None
    try:
        with contextlib.suppress(ReleaseError):  # said already, and never mended by trying again
            access.end(session, transaction, confirmed=False)
        before.forget(session)
        session.save()
        session.record("reverted", generation=name, to=transaction.previous, state=ended, reason=reason)
    except OSError as error:
        raise FailedError(
            f"{session.service} left {name} ({reason}) and runs {transaction.previous or 'nothing'} again, "
            f"but that could not be recorded: {error.strerror}",
            remedy=f"mend the disk (df, dmesg), then `mt5crs-release recover {session.service}`",
        ) from None
    watchdog.disarm(session.systemd, session.service)
    return {
        "action": "reverted",
        "generation": transaction.previous,
        "attempted": name,
        "state": ended,
        "reason": reason,
        "restored_healthy": None if report is None else report.healthy,
        "restored_reason": None if report is None else "; ".join([report.reason, *(complaints or [])]),
    }


def look_after(session: Session) -> dict[str, Any] | None:
    """Do as the watchdog timer: :func:`recover`, and leave a provisional generation whose units failed."""
    done = recover(session)
    transaction = session.state.transaction
    if transaction is None:
        watchdog.disarm(session.systemd, session.service)
        return done
    if transaction.unjudged_since is not None:
        return done  # it may fail and start again until all that go back with it have
    content = session.content(transaction.generation)
    for name, unit in session.systemd.look(content.start).items():
        if unit.active == "failed":
            return revert(session, "unhealthy", f"{name} failed ({unit.result}) before it was confirmed")
        if unit.restarts > transaction.restarts.get(name, 0):
            return revert(session, "unhealthy", f"{name} crashed and was restarted before it was confirmed")
    return done
