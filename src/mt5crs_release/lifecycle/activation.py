"""Activate, confirm, revert and roll back: what moves a service from one generation to another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from mt5crs_release.bundles import runtime_marker
from mt5crs_release.desired.access_list import AccessList, Changes
from mt5crs_release.desired.spec import HealthSpec, StandbySpec
from mt5crs_release.errors import FailedError, InterruptedRunError, RefusedError, ReleaseError
from mt5crs_release.generations import access, before, generation, machine
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.generations.state import Generation, Transaction
from mt5crs_release.lifecycle import changes, cutover, health, live, shadow, standby
from mt5crs_release.lifecycle.dependence import AGREED
from mt5crs_release.lifecycle.recovery import leave_standby, recover, revert
from mt5crs_release.lifecycle.shadow import Terms
from mt5crs_release.lifecycle.standby import EQUAL, Report
from mt5crs_release.lifecycle.switch import check_units, switch
from mt5crs_release.lifecycle.transaction import begin, end_confirmed, set_deadline, wait
from mt5crs_release.storage.journal import timestamp


@dataclass(frozen=True)
class _Beside:
    """How a candidate shows itself beside what runs, before it follows."""

    standby: StandbySpec | None = None
    shadow: StandbySpec | None = None
    terms: Terms | None = None

    @property
    def wanted(self) -> bool:
        """Whether it has to at all."""
        return self.standby is not None or self.shadow is not None


_ALONE = _Beside()
DEFAULT_CONFIRM_TIMEOUT_S = 120.0
LIVE = ", without a restart"
_ROLLBACK_MIN_HEALTHY_S = 0.5
"""A generation that was confirmed once has shown that it stays up; going back must be quick."""


def activate(
    session: Session,
    name: str | None,
    *,
    confirm_timeout_s: float,
    force: bool = False,
    accept_state_format: int | None = None,
    dry_run: bool = False,
    with_standby: bool = False,
    with_shadow: Terms | None = None,
    former_key: bool = False,
    deployment: str | None = None,
) -> dict[str, Any]:
    """Make a staged generation run, provisional under its health gate.

    :param name: the generation; ``None``: the one staged last
    :param confirm_timeout_s: seconds until it reverts by itself; 0 confirms at once
    :param force: also a generation that has failed before
    :param deployment: id of the deployment this belongs to, so that `undo` finds it
    :param with_standby: let it observe beside what runs first, and switch only if both hold the same state
    :param former_key: its gateway gets another key before it is confirmed; until then it takes both
    :param with_shadow: then let it run in the shadow of what runs, and switch only if it is promoted
    :raises RefusedError: it may not be activated
    :raises FailedError: it was not healthy (the previous generation runs again), or its state differed in
        standby (the previous generation was never stopped)
    """
    if not dry_run:
        recover(session)
    entry = _wanted(session, name)
    if entry.name == session.state.current and session.pointer() == entry.name:
        return _already_current(session, entry, confirm_timeout_s, dry_run=dry_run)
    _refuse_while_pending(session)
    _check(session, entry, force=force, accept_state_format=accept_state_format)
    content = session.content(entry.name)
    check_units(session, content)
    beside = _Beside(
        standby.require(session, content, content.standby, "standby") if with_standby else None,
        standby.require(session, content, content.shadow, "shadow") if with_shadow else None,
        with_shadow,
    )
    session.former_key = former_key
    if dry_run:
        return result(session, entry, changed=True, reason=f"would activate {entry.name}")
    return _run(
        session,
        entry,
        content,
        confirm_timeout_s,
        content.health,
        rollback=False,
        beside=beside,
        deployed=(deployment, timestamp()),
        lets_in=access.own(session.paths, content),
    )


def confirm(session: Session, name: str | None = None) -> dict[str, Any]:
    """Make the provisional generation the one to stay, after one more look at its health.

    One whose health nobody has judged yet (``undo --hold``) is judged now, with its whole policy.

    :param name: the generation that is meant; ``None``: whichever is provisional
    :raises RefusedError: another generation than ``name`` is provisional, or there is nothing to confirm
    :raises FailedError: it is not healthy any more, or has gone back already; the previous one runs
    """
    undone = recover(session)
    transaction = session.state.transaction
    if transaction is None:
        return _confirm_nothing(session, undone, name)
    _require_named(session, transaction, name)
    entry = session.state.generations[transaction.generation]
    content = session.content(entry.name)
    if transaction.unjudged_since is not None:
        report = health.watch(session, content, content.health, patient=True)
    else:
        policy = replace(
            content.health,
            min_healthy_s=0.0,
            healthy_deadline_s=min(content.health.healthy_deadline_s, 5.0),
            progress_deadline_s=min(content.health.progress_deadline_s, 10.0),
            max_restarts=0,
        )
        report = health.watch(session, content, policy, transaction.restarts)
    if not report.healthy:
        _fail(session, entry, content, f"not healthy when it was to be confirmed: {report.reason}", report)
    _count_alone(session, entry, content)
    end_confirmed(session, transaction)
    return result(session, entry, changed=True, reason="confirmed", report=report)


def extend(session: Session, name: str | None, confirm_timeout_s: float) -> dict[str, Any]:
    """Give the provisional generation time anew, because its deployment goes on elsewhere.

    :param name: the generation that is meant; ``None``: whichever is provisional
    :raises RefusedError: nothing, or another generation than ``name``, is provisional
    :raises FailedError: it has gone back already
    """
    if confirm_timeout_s <= 0:
        raise RefusedError("0 seconds would revert at once", remedy="name more, or use `revert`")
    undone = recover(session)
    transaction = session.state.transaction
    if transaction is None:
        answer = _confirm_nothing(session, undone, name)
        return {**answer, "reason": "confirmed already, so nothing is waiting"}
    _require_named(session, transaction, name)
    set_deadline(transaction, confirm_timeout_s)
    session.save()
    session.record("extended", generation=transaction.generation, deadline=transaction.deadline_at)
    entry = session.state.generations[transaction.generation]
    reason = f"reverts by itself at {transaction.deadline_at} unless confirmed"
    return result(session, entry, changed=True, reason=reason)


def ask_revert(session: Session, confirmed: str | None = None) -> dict[str, Any]:
    """Leave the provisional generation now; nothing to do when none is pending.

    :param confirmed: also leave this generation if it is the current one, though it was confirmed: for a
        deployment that fails while it confirms
    :raises RefusedError: it was confirmed, and there is no earlier generation to go back to
    :raises FailedError: what ran before is not healthy
    """
    undone = recover(session)
    transaction = session.state.transaction
    if transaction is None and confirmed is not None and confirmed == session.state.current:
        return rollback(session, session.state.came_from, lets_in=access.before(session, confirmed))
    if transaction is None:
        entry = session.state.generations.get(session.state.current or "")
        reason = str(undone["reason"]) if undone else "nothing is provisional"
        return {**result(session, entry, changed=undone is not None, reason=reason), **_restored(undone)}
    entry = session.state.generations[transaction.generation]
    undone = revert(session, "revert", "asked to")
    answer = {**result(session, entry, changed=True, reason="reverted as asked"), **_restored(undone)}
    if undone["restored_healthy"] is False:
        raise FailedError(
            f"{session.service} is back on {undone['generation']}, "
            f"which is not healthy: {undone['restored_reason']}",
            remedy="see the journal lines; what it depends on may be down",
            details={**answer, "journal": session.systemd.last_lines(_start_units(session))},
        )
    return answer


def rollback(
    session: Session,
    to: str | None,
    *,
    accept_state_format: int | None = None,
    dry_run: bool = False,
    lets_in: AccessList | None = None,
    alone: bool = False,
) -> dict[str, Any]:
    """Return to a generation that was confirmed once, and confirm it at once.

    :param to: the generation; ``None``: the confirmed one that ran before
    :param alone: those who need the service stay as they are, so what they agreed on with it has to stay
    :param lets_in: the access list to go with it; ``None``: the one in force stays, whatever ran then
    :raises RefusedError: there is none, or it was never confirmed; the message lists what there is
    :raises FailedError: it is not healthy; what ran before the rollback runs again
    """
    if not dry_run:
        undone = recover(session)
        if undone is None and session.state.transaction is not None and to is None:
            # Something unconfirmed runs: going back means leaving that.
            return ask_revert(session)
    entry, content = way_back(session, to, accept_state_format=accept_state_format)
    if lets_in is None:
        access.require_kept(session, content)
    if entry.name == session.state.current and session.state.transaction is None:
        return result(session, entry, changed=False, reason=f"{entry.name} is running already")
    if alone:
        _require_agreed(session, entry)
    if dry_run:
        answer = result(session, entry, changed=True, reason=f"would roll back to {entry.name}")
        return {**answer, "protocol": runtime_marker.protocol(session.host, entry.runtime)}
    if session.state.transaction is not None:
        revert(session, "revert", f"a rollback to {entry.name} was asked for")
        if entry.name == session.state.current:
            return result(session, entry, changed=True, reason=f"rolled back to {entry.name}")
    policy = replace(content.health, min_healthy_s=min(content.health.min_healthy_s, _ROLLBACK_MIN_HEALTHY_S))
    return _run(session, entry, content, 0.0, policy, rollback=True, lets_in=lets_in)


def _require_agreed(session: Session, entry: Generation) -> None:
    """:raises RefusedError: who needs the service would ask at another address, or for another key"""
    left = session.state.current
    if left is None:
        return
    found = changes.between(session.paths.generation(left), session.paths.generation(entry.name))
    broken = [name for name in AGREED.get(session.service, ()) if f".env {name}" in found]
    if broken:
        raise RefusedError(
            f"{session.service} {entry.name} has another {', '.join(broken)}: "
            "going back to it alone cuts off all who use it",
            remedy="roll the fleet back (--data part=fleet, --tags fleet; one host: `mt5crs-release undo`), "
            f"or name it (to={entry.name}) once those have gone back; nothing was changed",
        )


def give_access_back(session: Session, to: str | None, *, dry_run: bool = False) -> dict[str, Any]:
    """Put the access list that a generation brought in force, with a new version; nothing is restarted.

    :param to: the generation; ``None``: the one that runs, or if its list is in force the one before
    :raises RefusedError: a deployment of the service is under way, or the generation has no list
    """
    if not dry_run:
        recover(session)
    _refuse_while_pending(session)
    current = session.state.current
    if to is None and current is not None:
        told = access.describe(session.paths, session.content(current))
        to = current if told is not None and not told["own"] else None
    entry, content = (
        (session.state.generations[to], session.content(to))
        if to == current and to
        else way_back(session, to)
    )
    serial, made = access.give_back(session, content, dry_run=dry_run)
    changed = bool(made.gains or made.loses)
    does = "would be" if dry_run else "is"
    who = _who(made) if changed else "nothing changes"
    reason = f"the access list of {entry.name} {does} in force as version {serial}: {who}"
    return {
        **result(session, entry, changed=changed, reason=reason),
        "access": made.as_json(),
        "serial": serial,
    }


def _who(made: Changes) -> str:
    parts = [("gets access", made.gains), ("loses access", made.loses)]
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts if names)


def way_back(
    session: Session, to: str | None, *, accept_state_format: int | None = None
) -> tuple[Generation, Content]:
    """Return the generation that a rollback goes to; the parameters are those of :func:`rollback`.

    :raises RefusedError: it may not
    """
    entry = _rollback_target(session, to)
    content = session.content(entry.name)
    if entry.name != session.state.current or session.state.transaction is not None:
        _check(session, entry, force=False, accept_state_format=accept_state_format)
        check_units(session, content)
    return entry, content


def check_state_format(session: Session, wanted: int, accepted: int | None) -> None:
    """Check that code which reads state format ``wanted`` may follow what runs now.

    :raises RefusedError: the state on this host was written in a newer format
    """
    running = session.state.generations.get(session.state.current or "")
    if running is None or wanted >= running.state_format or accepted == wanted:
        return
    raise RefusedError(
        f"{session.service} has written its state in format {running.state_format} ({running.name}); "
        f"this generation only reads format {wanted}",
        remedy=f"restore the backup of /var/lib/mt5crs/{session.service} taken before {running.name}, "
        f"then repeat with --accept-state-format {wanted}; nothing was changed",
    )


def result(
    session: Session,
    entry: Generation | None,
    *,
    changed: bool,
    reason: str,
    report: health.Report | None = None,
) -> dict[str, Any]:
    """Return the object that every command of this module prints."""
    transaction = session.state.transaction
    return {
        "changed": changed,
        "service": session.service,
        "generation": session.state.current,
        "attempted": entry.name if entry else None,
        "version": entry.version if entry else None,
        "previous": transaction.previous if transaction else session.state.previous,
        "state": entry.state if entry else None,
        "deadline": transaction.deadline_at if transaction else None,
        "seconds": round(time.monotonic() - session.began, 3),
        "reason": reason,
        "health": report.as_json() if report else None,
        "standby": session.standby,
        "shadow": session.shadow,
        "cutover": session.cutover,
        "live": session.live,
        "changes": session.changes,
        "journal": [],
    }


def _run(
    session: Session,
    entry: Generation,
    content: Content,
    confirm_timeout_s: float,
    policy: HealthSpec,
    *,
    rollback: bool,
    beside: _Beside = _ALONE,
    deployed: tuple[str | None, str] | None = None,
    lets_in: AccessList | None = None,
) -> dict[str, Any]:
    previous = session.state.current
    leaving = None if previous is None else session.content(previous)
    forced = entry.state == machine.FAILED
    transaction = begin(session, entry, confirm_timeout_s, rollback=rollback, deployed=deployed)
    compared = beside.wanted and _compare(session, entry, leaving, content, beside, forced=forced)
    if not compared:
        session.advance(entry.name, "force" if forced else "activate")
    try:
        session.save()
        session.record("activating", generation=entry.name, previous=previous, rollback=rollback)
        began = time.monotonic()
        access.begin(session, transaction, lets_in, leaving)
        before.remember(session, content, previous)
        complaints = switch(session, leaving, content, prove_stopped=compared)
        report = health.watch(session, content, policy)
        session.cutover = cutover.gaps(session.systemd.stamps(content.start, cutover.PROPERTIES), began)
    except InterruptedRunError as error:
        _fail(session, entry, content, error.message, None, "interrupted")
    except (ReleaseError, OSError) as error:
        _fail(session, entry, content, str(error), None)
    if not report.healthy:
        reason = "; ".join([f"{report.outcome}: {report.reason}", *complaints])
        _fail(session, entry, content, reason, report)
    session.advance(entry.name, "healthy")
    session.state.current = entry.name
    if confirm_timeout_s == 0:
        _count_alone(session, entry, content)
        end_confirmed(session, transaction)
        reason = f"rolled back to {entry.name}" if rollback else "healthy and confirmed"
        reason += LIVE if session.live else ""
        return result(session, entry, changed=True, reason=reason, report=report)
    wait(session, content, transaction, confirm_timeout_s)
    session.save()
    session.record(
        "provisional", generation=entry.name, deadline=transaction.deadline_at, health=report.as_json()
    )
    reason = f"healthy; reverts by itself at {transaction.deadline_at} unless confirmed"
    reason += LIVE if session.live else ""
    return result(session, entry, changed=True, reason=reason, report=report)


def _compare(
    session: Session,
    entry: Generation,
    leaving: Content | None,
    content: Content,
    beside: _Beside,
    *,
    forced: bool,
) -> bool:
    """Let ``entry`` stand by, compare it and stop it again; tell whether that was done.

    Left out when nothing runs that it could be compared with: then the health gate alone decides.

    :raises FailedError: it differs or could not be compared; what runs was not touched
    """
    report = standby.nothing_to_compare(session, leaving)
    if live.units_to_tell(session, leaving, content):
        report = standby.Report(standby.EQUAL, (), "not compared: what runs takes the change over as it is")
    if report is not None:
        session.standby = report.as_json()
        session.shadow = shadow.left_out(report.reason, beside.terms) if beside.terms else None
        return False
    session.advance(entry.name, "stand by forced" if forced else "stand by")
    remedy = ""
    try:
        session.save()
        session.record("standing by", generation=entry.name)
        report = Report(EQUAL, (), "not compared: not asked for")
        if beside.standby is not None:
            report = standby.compare(session, content, beside.standby)
            session.standby = report.as_json()
            session.record("compared", generation=entry.name, standby=session.standby)
        if report.event == EQUAL and beside.shadow is not None and beside.terms is not None:
            remedy = shadow.REMEDY
            report = shadow.compare(session, content, beside.shadow, beside.terms)
            session.record("shadow ended", generation=entry.name, shadow=session.shadow)
    except (ReleaseError, OSError) as error:
        _turn_away(session, entry, "interrupted", str(error), ())
    if report.event != EQUAL:
        _turn_away(session, entry, report.event, report.reason, report.differences, report.units, remedy)
    session.advance(entry.name, report.event)
    return True


def _turn_away(
    session: Session,
    entry: Generation,
    event: str,
    reason: str,
    differences: Sequence[str],
    units: Sequence[str] = (),
    remedy: str = "",
) -> NoReturn:
    """Stop the standby, record why it is not to follow, and raise.

    :raises FailedError: always
    """
    lines = session.systemd.last_lines(units) if units else []
    undone = leave_standby(session, event, "; ".join([reason, *differences]))
    stage = "standby" if session.shadow is None else "the shadow"
    known = "" if event == standby.UNHEALTHY else remedy
    raise FailedError(
        f"{session.service} {entry.name} was turned away in {stage}: {undone['reason']}; "
        f"{undone['generation']} runs on and was never stopped",
        remedy=known or standby.REMEDIES.get(event, "repeat the command when the cause is mended"),
        details={**result(session, entry, changed=True, reason=reason), "journal": lines},
    )


def _require_named(session: Session, transaction: Transaction, name: str | None) -> None:
    if name is not None and transaction.generation != name:
        raise RefusedError(
            f"{session.service} {transaction.generation} is provisional, not {name}",
            remedy="another deployment is at work on this service: see `mt5crs-release status`",
        )


def _count_alone(session: Session, entry: Generation, content: Content) -> None:
    """Let what is about to be confirmed count alone, no longer together with what ran before.

    :raises FailedError: a unit refused; the previous generation runs again
    """
    try:
        before.take_effect(session, content)
    except (ReleaseError, OSError) as error:
        _fail(session, entry, content, str(error), None)


def _fail(
    session: Session,
    entry: Generation,
    content: Content,
    reason: str,
    report: health.Report | None,
    event: str = "unhealthy",
) -> NoReturn:
    """Collect the diagnosis, go back, and raise.

    :raises FailedError: always
    """
    session.enter("collecting the diagnosis")
    lines = session.systemd.last_lines(content.start)
    undone = revert(session, event, reason)
    back = undone["generation"]
    after = f"went back to {back}" if back else "nothing ran before: the service is stopped"
    if undone["restored_healthy"] is False:
        after += f", WHICH IS NOT HEALTHY EITHER ({undone['restored_reason']})"
    raise FailedError(
        f"{session.service} {entry.name}: {reason}; {after}",
        remedy="read the journal lines of the unit, mend the cause and deploy again",
        details={
            **result(session, entry, changed=True, reason=reason, report=report),
            **_restored(undone),
            "journal": lines,
        },
    )


def _restored(undone: dict[str, Any] | None) -> dict[str, Any]:
    return {"restored_healthy": undone["restored_healthy"]} if undone else {}


def _confirm_nothing(session: Session, undone: dict[str, Any] | None, name: str | None) -> dict[str, Any]:
    """Nothing is provisional: it was confirmed before, or it has gone back and the caller must know."""
    entry = session.state.generations.get(session.state.current or "")
    left = session.state.generations.get(name or session.state.last_left or "")
    if left is not None and left is not entry and left.left_because is not None:
        raise FailedError(
            f"{session.service} {left.name} is not running any more: {left.left_because}",
            remedy="read the journal, mend the cause, deploy again and confirm in time (--confirm-timeout)",
            details={
                **result(session, left, changed=undone is not None, reason=left.left_because),
                **_restored(undone),
            },
        )
    if entry is None or name not in (None, entry.name):
        raise RefusedError(
            f"{session.service} has nothing to confirm",
            remedy="activate a generation first (`mt5crs-release list`)",
        )
    return result(session, entry, changed=False, reason="confirmed already")


def _already_current(
    session: Session, entry: Generation, confirm_timeout_s: float, *, dry_run: bool
) -> dict[str, Any]:
    transaction = session.state.transaction
    if transaction is None:
        return result(session, entry, changed=False, reason="running and confirmed already")
    if confirm_timeout_s == 0 and not dry_run:
        return confirm(session)
    return result(session, entry, changed=False, reason="running and provisional already")


def _wanted(session: Session, name: str | None) -> Generation:
    chosen = name or session.state.desired
    entry = session.state.generations.get(chosen or "")
    if entry is None:
        raise RefusedError(
            f"{session.service} has no generation {chosen}"
            if chosen
            else f"{session.service} has nothing staged",
            remedy=f"stage one, or choose from: {_names(session.state.in_order())}",
        )
    return entry


def _check(session: Session, entry: Generation, *, force: bool, accept_state_format: int | None) -> None:
    if entry.state == machine.FAILED and not force:
        raise RefusedError(
            f"{entry.name} has failed before: {entry.left_because}",
            remedy="stage the mended release (that makes a new generation), or repeat with --force",
        )
    damage = generation.problems(session.paths.generation(entry.name))
    if damage:
        raise RefusedError(
            f"{entry.name} is not what was staged: {', '.join(damage)}",
            remedy="stage the service again: that makes a new, intact generation",
        )
    check_state_format(session, entry.state_format, accept_state_format)


def _refuse_while_pending(session: Session) -> None:
    transaction = session.state.transaction
    if transaction is None:
        return
    raise RefusedError(
        f"{session.service} {transaction.generation} is provisional until {transaction.deadline_at}",
        remedy=f"first `mt5crs-release confirm {session.service}`, or `revert` instead of `confirm`",
    )


def _rollback_target(session: Session, to: str | None) -> Generation:
    allowed = [entry for entry in session.state.in_order() if entry.state == machine.CONFIRMED]
    name = to or session.state.previous
    entry = session.state.generations.get(name or "")
    if entry in allowed:
        return entry
    if name is None:
        problem = f"{session.service} has no earlier confirmed generation to go back to"
    elif entry is None:
        problem = f"{session.service} has no generation {name}"
    elif entry.state == machine.FAILED:
        problem = f"{name} has failed: {entry.left_because}"
    else:
        problem = f"{name} was never confirmed, so nothing shows that it works"
    others = [entry for entry in allowed if entry.name != session.state.current]
    remedy = (
        f"choose with --to from: {_names(others)}"
        if others
        else "there is no other one here either: leave this host out of the rollback (--limit), or take it "
        "out of the fleet (`mt5crs --inventory … decommission HOST`)"
    )
    raise RefusedError(problem, remedy=f"{remedy}; nothing was changed")


def _names(entries: list[Generation]) -> str:
    return (
        ", ".join(f"{entry.name} ({entry.version or 'configuration'}, {_told(entry)})" for entry in entries)
        or "none"
    )


def _told(entry: Generation) -> str:
    return entry.state + (f"; left last time: {entry.left_because}" if entry.left_because else "")


def _start_units(session: Session) -> tuple[str, ...]:
    current = session.state.current
    return session.content(current).start if current else ()
