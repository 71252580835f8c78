"""A candidate beside the running generation: it observes, is compared, and is stopped before any switch.

The shadow stage (:mod:`mt5crs_release.lifecycle.shadow`) is a second one of these, with a longer look.

The pointer ``standby`` names the candidate while its units may run; their links are below /run, so no boot
finds them. Whoever finds the pointer or a link without a living run takes everything back (:func:`clear`).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mt5crs_release.desired.spec import StandbySpec
from mt5crs_release.errors import RefusedError
from mt5crs_release.generations import before
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.lifecycle.gate import EXIT_HEALTHY, EXIT_INCONCLUSIVE, EXIT_UNHEALTHY
from mt5crs_release.storage import store
from mt5crs_release.systems import system

EQUAL = "equal"
DIFFERS = "differs"
UNHEALTHY = "unhealthy"
INCONCLUSIVE = "inconclusive"

Verdict = tuple[str, str, dict[str, Any]]
"""Event, reason, and the fields of the check's answer."""
_EVENTS = {EXIT_HEALTHY: EQUAL, EXIT_UNHEALTHY: DIFFERS, EXIT_INCONCLUSIVE: INCONCLUSIVE}
_STOP_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 3.0
_MAX_DIFFERENCES = 20
_DETAIL_CHARACTERS = 500


@dataclass(frozen=True)
class Report:
    """How a standby phase ended; ``event`` is what the table of transitions is told."""

    event: str
    units: tuple[str, ...]
    reason: str
    digest_running: str | None = None
    digest_standby: str | None = None
    differences: tuple[str, ...] = ()
    """What differs, one sentence each."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the report as ``activate --json`` shows it; ``equal`` is null when nothing was compared."""
        equal = {EQUAL: True, DIFFERS: False}.get(self.event) if self.units else None
        return {
            "units": list(self.units),
            "digest_running": self.digest_running,
            "digest_standby": self.digest_standby,
            "equal": equal,
            "seconds": round(self.seconds, 3),
            "reason": self.reason,
            "differences": list(self.differences),
        }


REMEDIES = {
    DIFFERS: "correct what differs (magic number, account, or the code that computes the state) and deploy "
    "again; if the running one is wrong, mend that first (`mt5crs accept`)",
    UNHEALTHY: "read the journal lines of the standby unit, mend the cause and deploy again",
    INCONCLUSIVE: "mend what the reason names and repeat, or activate without --standby",
}
"""What to do about each way a candidate is turned away."""


def require(session: Session, candidate: Content, wanted: StandbySpec | None, key: str) -> StandbySpec:
    """Return ``wanted``: how ``candidate`` runs beside another generation, in the stage called ``key``.

    :raises RefusedError: it cannot, or a unit file of someone else is in the way; nothing was changed
    """
    if not system.here().links_units:
        raise RefusedError(
            "Windows services cannot run beside each other under one name",
            remedy=f"activate without --{key} (strategy rolling)",
        )
    if wanted is None:
        raise RefusedError(
            f"{session.service} {candidate.name} brings no {key} units",
            remedy=f"activate it without --{key}, or stage one whose specification has the key '{key}'",
        )
    shadowing = [unit for unit in wanted.units if (session.host.units / unit).exists()]
    if shadowing:
        raise RefusedError(
            f"{', '.join(shadowing)} in {session.host.units} hides the {key} unit of that name",
            remedy="move it away, then repeat; nothing was changed",
        )
    return wanted


def nothing_to_compare(session: Session, running: Content | None) -> Report | None:
    """Return the report of a phase that is left out because nothing runs, ``None`` when something does.

    :raises FailedError: systemd does not answer
    """
    if running is None:
        return Report(EQUAL, (), "not compared: nothing ran before")
    units = session.systemd.look(running.start)
    down = [f"{name} is {unit.active}" for name, unit in units.items() if unit.active != "active"]
    return Report(EQUAL, (), f"not compared: {', '.join(down)}") if down else None


def compare(
    session: Session,
    candidate: Content,
    wanted: StandbySpec,
    judge: Callable[[int | None, str], Verdict] | None = None,
    *,
    doing: str = "standby",
    watched: bool = False,
) -> Report:
    """Run ``candidate`` beside what runs, compare the two, and stop it again.

    :param judge: what the check's answer means; default: :func:`verdict`
    :param doing: what it does beside, in words
    :param watched: end the comparison once a unit is dead, however long it may take
    :raises FailedError: systemd does not answer
    :raises OSError: the disk is full or broken
    """
    began = time.monotonic()
    report = _compare(session, candidate, wanted, judge or verdict, doing, watched=watched)
    clear(session)
    return Report(**{**vars(report), "seconds": time.monotonic() - began})


def clear(session: Session, *, boot: bool = False) -> bool:
    """Stop whatever stands by and remove its links and pointer; repeatable. Return whether there was any.

    :param boot: nothing can be running yet, and stopping would wait for the boot
    :raises FailedError: systemd does not answer, or a unit does not stop
    """
    links = _links(session)
    if not links and store.read_link(session.paths.standby) is None:
        return False
    session.enter("stopping the standby")
    units = [link.name for link in links]
    if units and not boot:
        session.systemd.stop(units, _STOP_TIMEOUT_S)
        session.systemd.forget_failures(units)
    before.dismiss(session, units)
    for link in links:
        store.remove_link(link)
    session.systemd.reload()
    # Last: as long as the pointer is there, the next run comes here again.
    store.remove_link(session.paths.standby)
    return True


def verdict(status: int | None, output: str, events: Mapping[int, str] = _EVENTS) -> Verdict:
    """Return event, reason and the answer's fields of a comparison; pure.

    :param status: exit status of the check, ``None``: it did not end in time or could not be run
    :param events: what each status means
    """
    lines = output.strip().splitlines()
    last = lines[-1] if lines else ""
    try:
        answer = json.loads(last)
    except ValueError:
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    reason = str(fields.get("reason") or last)[:_DETAIL_CHARACTERS]
    if status is None or status not in events:
        how = "did not end in time" if status is None else f"ended with status {status}"
        return UNHEALTHY, f"the comparison itself {how}: {reason or 'no output'}", fields
    return events[status], reason or events[status], fields


def _compare(
    session: Session,
    candidate: Content,
    wanted: StandbySpec,
    judge: Callable[[int | None, str], Verdict],
    doing: str,
    *,
    watched: bool,
) -> Report:
    session.enter(f"starting the {doing}")
    store.switch_link(session.paths.standby, f"generations/{candidate.name}")
    store.ensure_directory(session.host.volatile_units)
    for unit in wanted.units:
        link = session.host.volatile_units / unit
        store.switch_link(link, str(session.paths.standby / "units" / unit))
    before.introduce(session, candidate, wanted.units)
    session.systemd.reload()
    for unit in wanted.units:
        complaint = session.systemd.start(unit, wanted.start_timeout_s)
        if complaint:
            return Report(UNHEALTHY, wanted.units, complaint)
    session.enter("comparing")
    command = [word.replace("{standby}", str(session.paths.standby)) for word in wanted.check]
    died = partial(_died, session, wanted.units, doing)
    status, output = _ask(session, command, wanted.check_timeout_s, died if watched else None)
    event, reason, fields = judge(status, output)
    dead = died()
    if dead is not None:
        return Report(UNHEALTHY, wanted.units, dead)
    return Report(
        event,
        wanted.units,
        reason,
        digest_running=_text(fields.get("digest_running")),
        digest_standby=_text(fields.get("digest_standby")),
        differences=tuple(str(item) for item in fields.get("differences") or ())[:_MAX_DIFFERENCES],
    )


def _died(session: Session, units: Sequence[str], doing: str) -> str | None:
    for name, sample in session.systemd.look(units).items():
        if sample.active != "active" or sample.restarts:
            return f"{name} died in {doing} ({sample.result}, exit status {sample.exit_status})"
    return None


def _text(value: object) -> str | None:
    return str(value) if value else None


def _links(session: Session) -> list[Path]:
    directory = session.host.volatile_units
    if not directory.is_dir():
        return []
    ours = f"{session.paths.standby}/"
    return [path for path in sorted(directory.iterdir()) if (store.read_link(path) or "").startswith(ours)]


def _ask(
    session: Session, command: Sequence[str], timeout_s: float, dead: Callable[[], str | None] | None
) -> tuple[int | None, str]:
    """Run the check with heartbeats; its exit status (``None``: none in time) and its output.

    :param dead: looked at on the way: why there is nothing to ask about any more
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=session.paths.base,
            env=system.here().environment(),
        )
    except OSError as error:
        return None, f"{command[0]} cannot be run: {error.strerror}"
    end = time.monotonic() + timeout_s
    look_at = time.monotonic() + _LOOK_EVERY_S
    with process:
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=min(1.0, max(0.0, end - time.monotonic())))
                except subprocess.TimeoutExpired:
                    session.lock.beat(session.phase)
                    if time.monotonic() >= end:
                        return None, f"no answer within {timeout_s:g} s"
                    if dead is not None and time.monotonic() >= look_at:
                        look_at = time.monotonic() + _LOOK_EVERY_S
                        if (why := dead()) is not None:
                            return None, why
                else:
                    return process.returncode, output
        finally:
            process.kill()
