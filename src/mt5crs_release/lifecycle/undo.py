"""Undo a deployment on this host: every service that still runs what it brought goes back, all as one.

What services share (a port, a magic number, a key) keeps each from being healthy until the others have gone
back as well. So all pointers move first, then the services are restarted in the order in which they depend on
each other, and health is judged once, for all of them. A fleet takes these steps one by one, on all hosts
at once: :func:`hold`, :func:`judge`, then `confirm` of every service; or :func:`back`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mt5crs_release import signals
from mt5crs_release.desired import access_list
from mt5crs_release.desired.access_list import AccessList
from mt5crs_release.desired.name import plain
from mt5crs_release.errors import FailedError, RefusedError, ReleaseError
from mt5crs_release.generations import access, before, machine, state
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session, open_session
from mt5crs_release.generations.state import Generation, ServiceState, Transaction, undo_of
from mt5crs_release.lifecycle import cutover, health
from mt5crs_release.lifecycle.activation import ask_revert, result, rollback, way_back
from mt5crs_release.lifecycle.dependence import ALONE, ORDER
from mt5crs_release.lifecycle.health import Report, patiently
from mt5crs_release.lifecycle.recovery import recover, revert
from mt5crs_release.lifecycle.switch import repoint, start_queued
from mt5crs_release.lifecycle.transaction import begin, end_confirmed, set_deadline, wait
from mt5crs_release.storage.paths import Host

_ALONE_S = 3.0
"""How long what others need is waited for, so that they do not fail first."""
_LOOK_EVERY_S = 0.1
_SETTLE_S = 60.0
"""How long what was found healthy waits if this run dies between its judgement and the first confirmation."""

Answers = dict[str, dict[str, Any]]
Way = tuple[Session, Generation, Content, AccessList | None]
"""Where a service goes, and with which access list; ``None``: that stays as it is."""


def newest(host: Host) -> str:
    """Return the id of the newest deployment of which anything runs here.

    :raises RefusedError: none is recorded
    """
    found = [record.generations.get(record.current or "") for record in _records(host)]
    running = [entry for entry in found if entry and entry.deployment]
    last = max(running, key=lambda entry: str(entry.deployed_at), default=None)
    if last is None:
        raise RefusedError(
            "no deployment is recorded for what runs on this host",
            remedy="roll the services back one by one: `mt5crs-release rollback SERVICE`",
        )
    return str(last.deployment)


def ask(host: Host, deployment: str, *, wait_s: float, give_back: bool = False) -> dict[str, Any]:
    """Say what an undo of ``deployment`` would do, and change nothing.

    :param give_back: access lists go back as well, as in :func:`hold` and :func:`undo`
    :raises RefusedError: a service of it cannot go back
    """
    answers: Answers = {}
    for name in _services(host, deployment, _is_part):
        with open_session(host, name, "undo", wait_s=wait_s, dry_run=True) as session:
            if _is_held(session.state, deployment):
                answers[name] = result(session, _entry(session), changed=True, reason="went back, is held")
                continue
            try:
                _, content = way_back(session, None)
                lets_in = access.for_undo(session, content, give_back=give_back)
                answers[name] = {**rollback(session, None, dry_run=True), "access": _told(session, lets_in)}
            except ReleaseError as error:
                answers[name] = error.as_json()
    _refuse(answers, deployment)
    return _answer(deployment, answers)


def undo(host: Host, deployment: str, *, wait_s: float, give_back: bool = False) -> dict[str, Any]:
    """Roll back what ``deployment`` brought, and confirm it once all of it is healthy.

    :param give_back: access lists go back as well; they stay otherwise

    :raises RefusedError: a service of it cannot go back; then none does
    :raises FailedError: one could not be moved or was not healthy; then all run again what ran before
    """
    with _open(host, deployment, _is_part, wait_s) as sessions:
        answers = _move(sessions, deployment, give_back=give_back)
        moved = [session for session in sessions if _is_held(session.state, deployment)]
        with _as_one(moved, deployment, look_again=True):
            reports = _judge(moved)
            for session in moved:
                _become_provisional(session, "healthy")
                _wait(session, _SETTLE_S)
            for session in moved:
                before.take_effect(session, _content(session))
        for session in moved:
            entry = _entry(session)
            end_confirmed(session, _transaction(session))
            reason, report = f"rolled back to {entry.name}", reports[session.service]
            answers[session.service] = result(session, entry, changed=True, reason=reason, report=report)
        return _answer(deployment, answers)


def hold(
    host: Host, deployment: str, seconds: float, *, wait_s: float, give_back: bool = False
) -> dict[str, Any]:
    """Move back what ``deployment`` brought and restart it, without waiting for its health; repeatable.

    :param seconds: until it returns to the deployment by itself, unless confirmed
    :param give_back: access lists go back as well; they stay otherwise
    :raises RefusedError: a service of it cannot go back; then none does
    :raises FailedError: one could not be moved; then all run again what ran before
    """
    if seconds <= 0:
        raise RefusedError("0 seconds would return at once", remedy="name more")
    with _open(host, deployment, _is_part, wait_s) as sessions:
        answers = _move(sessions, deployment, give_back=give_back)
        moved = [session for session in sessions if _is_held(session.state, deployment)]
        with _as_one(moved, deployment):
            for session in moved:
                _become_provisional(session, "moved")
                transaction = _transaction(session)
                set_deadline(transaction, seconds)
                session.save()
                session.record("held", generation=transaction.generation, deadline=transaction.deadline_at)
                reason = f"moved, not judged yet; returns by itself at {transaction.deadline_at}"
                answers[session.service] = result(session, _entry(session), changed=True, reason=reason)
        return _answer(deployment, answers)


def judge(host: Host, deployment: str, *, wait_s: float) -> dict[str, Any]:
    """Wait until all that :func:`hold` has moved is healthy; then it waits for its confirmation.

    What is not healthy stays held: going back alone, before the other hosts do, would not mend it.

    :raises FailedError: one was not healthy, or all run again what ran before already
    """
    with _open(host, deployment, _is_part, wait_s) as sessions:
        gone = [session for session in sessions if not _is_held(session.state, deployment)]
        if gone or not sessions:
            said = [f"{session.service} is not held any more{_why_left(session)}" for session in gone]
            raise FailedError(
                "; ".join(said) or f"nothing of this host is held from an undo of {deployment}",
                remedy="see `mt5crs-release status` and journal.jsonl, then roll back again",
                details=_answer(deployment, {}),
            )
        answers: Answers = {}
        reports = _judge(sessions)
        for session in sessions:
            _wait(session, _transaction(session).confirm_timeout_s)
            reason, report = "healthy, waits to be confirmed", reports[session.service]
            entry = _entry(session)
            answers[session.service] = result(session, entry, changed=False, reason=reason, report=report)
        return _answer(deployment, answers)


def back(host: Host, deployment: str, *, wait_s: float) -> dict[str, Any]:
    """Return from an undo of ``deployment``, held or confirmed, to what ran before it; repeatable.

    :raises FailedError: a service did not return, or what runs again is not healthy
    """
    signals.ignore()
    with _open(host, deployment, _was_part, wait_s) as sessions:
        answers: Answers = {}
        confirmed = [session for session in sessions if session.state.undid == deployment]
        for session in sessions:
            try:
                answers[session.service] = _left(session)
            except ReleaseError as error:
                answers[session.service] = error.as_json()
        try:
            answers |= _come_back(confirmed, deployment)
        except ReleaseError as error:
            answers |= {session.service: error.as_json() for session in confirmed}
        touched = [
            session
            for session in sessions
            if answers[session.service].get("changed") or session.state.last_left is not None
        ]
        for name, report in _look(touched).items():
            answers[name] |= {"health": report.as_json(), "restored_healthy": report.healthy}
            if not report.healthy:
                answers[name] |= _not_healthy(name, answers[name]["generation"], report).as_json()
        errors = [answer["error"] for answer in answers.values() if "error" in answer]
        if errors:
            raise FailedError(
                "; ".join(dict.fromkeys(str(error["message"]) for error in errors)),
                remedy="; ".join(dict.fromkeys(str(error["remedy"]) for error in errors)),
                details={**_answer(deployment, answers), "journal": _last_lines(touched)},
            )
        return _answer(deployment, answers)


def _records(host: Host) -> Iterator[ServiceState]:
    for name in host.services():
        yield state.load(name, host.service(name).state)


def _is_held(record: ServiceState, deployment: str) -> bool:
    return record.transaction is not None and record.transaction.undoes == deployment


def _is_part(record: ServiceState, deployment: str) -> bool:
    """Tell whether a service runs what the deployment brought, or is held on its way back from it."""
    return _is_held(record, deployment) or record.runs(deployment)


def _was_part(record: ServiceState, deployment: str) -> bool:
    return _is_part(record, deployment) or record.undid == deployment


def _services(host: Host, deployment: str, which: Callable[[ServiceState, str], bool]) -> list[str]:
    """Return the services concerned in the order in which they are restarted."""
    found = [record.service for record in _records(host) if which(record, deployment)]
    return sorted(found, key=lambda name: ORDER.index(plain(name)) if plain(name) in ORDER else len(ORDER))


@contextmanager
def _open(
    host: Host, deployment: str, which: Callable[[ServiceState, str], bool], wait_s: float
) -> Iterator[list[Session]]:
    """Take the locks of all services concerned, and finish what dead runs have left on them.

    :raises BusyError: another run is at work on one of them
    """
    names = _services(host, deployment, which)
    with ExitStack() as stack:
        # In one order, as every command that takes several.
        opened = {
            name: stack.enter_context(open_session(host, name, "undo", wait_s=wait_s))
            for name in sorted(names)
        }
        sessions = [opened[name] for name in names]
        for session in sessions:
            recover(session)
        yield [session for session in sessions if which(session.state, deployment)]


def _transaction(session: Session) -> Transaction:
    transaction = session.state.transaction
    if transaction is None:
        raise FailedError(f"{session.service} is not held", remedy="see `mt5crs-release status`")
    return transaction


def _entry(session: Session) -> Generation:
    """Return the generation that the service is on, or on its way to."""
    transaction = session.state.transaction
    name = session.state.current if transaction is None else transaction.generation
    return session.state.generations[str(name)]


def _content(session: Session) -> Content:
    return session.content(_entry(session).name)


def _told(session: Session, lets_in: AccessList | None) -> dict[str, list[str]] | None:
    """Who gains and who loses access by the list that goes with an undo; ``None``: it stays as it is."""
    found = access.in_force(session.paths)
    return None if lets_in is None or found is None else access_list.changes(found[1], lets_in).as_json()


def _move(sessions: Sequence[Session], deployment: str, *, give_back: bool) -> Answers:
    """Move back all that has to; return what was done otherwise.

    Something that was provisional already only has to be left. What is held already stays as it is.
    """
    todo = [session for session in sessions if not _is_held(session.state, deployment)]
    unconfirmed = [session for session in todo if session.state.transaction is not None]
    ways: list[Way] = []
    refusals: Answers = {}
    for session in todo:
        try:
            if session not in unconfirmed:
                entry, content = way_back(session, None)
                ways.append((session, entry, content, access.for_undo(session, content, give_back=give_back)))
        except ReleaseError as error:
            refusals[session.service] = error.as_json()
    _refuse(refusals, deployment)
    answers = {session.service: ask_revert(session) for session in unconfirmed}
    _move_all(ways, deployment)
    return answers


def _move_all(ways: Sequence[Way], undoes: str) -> None:
    """Move every pointer, then restart all in order; nothing is waited for.

    :raises FailedError: one could not be moved, so that none was
    """
    names = [session.service for session, *_ in ways]
    with _as_one([session for session, *_ in ways], undoes):
        left: list[Content] = []
        for session, entry, entering, lets_in in ways:
            left.append(_content(session))
            others = [name for name in names if name != session.service]
            transaction = begin(session, entry, 0.0, rollback=True, undoes=undoes, together=others)
            transaction.unjudged_since = time.monotonic()
            session.advance(entry.name, "activate")
            session.save()
            session.record("moving back", generation=entry.name, previous=left[-1].name, undoes=undoes)
            access.begin(session, transaction, lets_in, left[-1])
            before.remember(session, entering, left[-1].name)
            repoint(session, left[-1], entering)
        for (session, _, entering, _), leaving in zip(ways, left, strict=True):
            start_queued(session, leaving, entering)
            if session.service in ALONE:
                _see_active(session, entering)


def _see_active(session: Session, content: Content) -> None:
    end = time.monotonic() + _ALONE_S
    while time.monotonic() < end:
        if all(unit.active in ("active", "failed") for unit in session.systemd.look(content.start).values()):
            return
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def _as_one(sessions: Sequence[Session], undoes: str, *, look_again: bool = False) -> Iterator[None]:
    """Whatever fails in here lets all of ``sessions`` go back to what ran before.

    :param look_again: then wait for the health of that, and say how it is
    :raises FailedError: something has failed
    """
    try:
        yield
    except (ReleaseError, OSError) as error:
        reason = error.message if isinstance(error, ReleaseError) else str(error)
        journal = error.details.get("journal", []) if isinstance(error, ReleaseError) else []
        trouble = _give_back(sessions, reason)
        if look_again and not trouble:
            trouble = [
                f"{name} IS NOT HEALTHY THERE EITHER ({report.reason})"
                for name, report in _look(sessions).items()
                if not report.healthy
            ]
        after = "; ".join(["all of it went back to what ran before", *trouble])
        answers = {
            session.service: result(session, _entry(session), changed=False, reason=reason)
            for session in sessions
        }
        raise FailedError(
            f"{_named(undoes)} was not undone on this host: {reason}; {after}",
            remedy="read the journal lines, mend the cause and roll back again",
            details={**_answer(undoes, answers), "journal": journal},
        ) from error


def _named(undoes: str) -> str:
    return undoes if undoes.startswith(undo_of("")) else f"deployment {undoes}"


def _give_back(sessions: Iterable[Session], reason: str) -> list[str]:
    """Leave what is open; return what went wrong with that. The watchdog takes it up again."""
    trouble = []
    for session in sessions:
        transaction = session.state.transaction
        if transaction is None:
            continue
        moving = _entry(session).state == machine.ACTIVATING
        try:
            revert(session, "interrupted" if moving else "revert", reason)
        except ReleaseError as error:
            trouble.append(f"but {error.message}")
    return trouble


def _judge(sessions: Sequence[Session]) -> dict[str, Report]:
    """Wait for the health of all; return the reports.

    :raises FailedError: one was not healthy
    """
    reports = health.watch_all([patiently(session, _content(session)) for session in sessions], give_up=True)
    for session in sessions:
        report = reports.get(session.service)
        if report is not None and not report.healthy:
            lines = session.systemd.last_lines(_content(session).start)
            error = _not_healthy(session.service, _entry(session).name, report)
            raise FailedError(error.message, remedy=error.remedy, details={"journal": lines})
        since = _transaction(session).unjudged_since
        if since is not None:
            stamps = session.systemd.stamps(_content(session).start, cutover.PROPERTIES)
            session.cutover = cutover.gaps(stamps, since)
    return reports


def _look(sessions: Sequence[Session]) -> dict[str, Report]:
    return health.watch_all([patiently(session, _content(session)) for session in sessions], give_up=False)


def _not_healthy(service: str, generation: str, report: Report) -> FailedError:
    return FailedError(
        f"{service} {generation}: {report.outcome}: {report.reason}",
        remedy="see the journal lines; what it depends on may be down",
    )


def _become_provisional(session: Session, event: str) -> None:
    entry = _entry(session)
    if entry.state == machine.ACTIVATING:
        session.advance(entry.name, event)
        session.state.current = entry.name


def _wait(session: Session, seconds: float, event: str = "judged healthy") -> None:
    transaction = _transaction(session)
    wait(session, _content(session), transaction, seconds)
    session.save()
    session.record(event, generation=transaction.generation, deadline=transaction.deadline_at)


def _left(session: Session) -> dict[str, Any]:
    """Leave what is held; nothing to do for a service that is not."""
    if session.state.transaction is not None:
        return ask_revert(session)
    return result(session, _entry(session), changed=False, reason="runs what ran before")


def _come_back(sessions: Sequence[Session], deployment: str) -> Answers:
    """Return from what was confirmed; it is not judged here, since other hosts have to come back as well.

    :raises ReleaseError: one could not, so that all stay
    """
    ways: list[Way] = [
        (
            session,
            *way_back(session, session.state.came_from),
            access.before(session, str(session.state.current)),
        )
        for session in sessions
    ]
    undoes = undo_of(deployment)
    _move_all(ways, undoes)
    with _as_one(sessions, undoes):
        for session in sessions:
            _become_provisional(session, "moved")
            _wait(session, _SETTLE_S, "came back")
        for session in sessions:
            before.take_effect(session, _content(session))
    answers: Answers = {}
    for session, entry, *_ in ways:
        end_confirmed(session, _transaction(session))
        answers[session.service] = result(session, entry, changed=True, reason=f"came back to {entry.name}")
    return answers


def _why_left(session: Session) -> str:
    left = session.state.generations.get(session.state.last_left or "")
    return f": {left.left_because}" if left else ""


def _last_lines(sessions: Iterable[Session]) -> list[str]:
    return [line for session in sessions for line in session.systemd.last_lines(_content(session).start)]


def _refuse(answers: Answers, deployment: str) -> None:
    """:raises RefusedError: a service has answered with an error; all of them are listed."""
    errors = [answer["error"] for answer in answers.values() if "error" in answer]
    if errors:
        raise RefusedError(
            f"deployment {deployment} cannot be undone on this host: "
            + "; ".join(str(error["message"]) for error in errors),
            remedy="; ".join(dict.fromkeys(str(error["remedy"]) for error in errors if error.get("remedy"))),
            details={**_answer(deployment, answers), "journal": []},
        )


def _answer(deployment: str, answers: Answers) -> dict[str, Any]:
    changed = any(answer.get("changed") for answer in answers.values())
    return {"changed": changed, "deployment": deployment, "services": answers}
