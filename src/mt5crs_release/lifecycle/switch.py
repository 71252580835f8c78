"""Making a host run another generation: pointer, unit files, services. Repeatable at any point."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.generations.unit_install import link_at_boot
from mt5crs_release.lifecycle import live
from mt5crs_release.storage import store
from mt5crs_release.systems import system
from mt5crs_release.systems.unit_sample import UnitSample


def check_units(session: Session, entering: Content) -> None:
    """Check that no unit file of someone else is in the way.

    :raises RefusedError: one is; nothing was changed
    """
    if not system.here().links_units:
        return
    ours = str(session.paths.base)
    foreign, masked = [], []
    for unit in entering.units:
        link = session.host.units / unit
        if link.is_symlink():
            leads_to = str(link.readlink())
            if leads_to == os.devnull:
                masked.append(unit)
            elif not leads_to.startswith(f"{ours}/"):
                foreign.append(str(link))
        elif link.exists():
            foreign.append(str(link))
    if masked:
        raise RefusedError(
            f"{', '.join(masked)} is masked on this host: somebody wanted that it never starts",
            remedy=f"`systemctl unmask {' '.join(masked)}` once it may, then repeat; nothing was changed",
        )
    if foreign:
        raise RefusedError(
            f"{', '.join(foreign)} exists and does not belong to {session.service}",
            remedy="move it away (it would be replaced), then repeat; nothing was changed",
        )


def switch(
    session: Session,
    leaving: Content | None,
    entering: Content | None,
    *,
    boot: bool = False,
    prove_stopped: bool = False,
    queued: bool = False,
    back: bool = False,
) -> list[str]:
    """Leave one generation and enter another (``None``: nothing); return what systemd complained about.

    The pointer moves first: a run that dies before has changed nothing, one that dies after is undone as a
    whole. During ``boot`` services are only queued, since waiting for them would block the boot.

    :param prove_stopped: see that not one of the old services' runs is left
    :param queued: do not wait for a service to start: what it depends on may not be back yet
    :param back: this is the way back, so what cannot be told of a change is restarted
    :raises FailedError: systemd does not answer, or a unit does not stop, or cannot be told
    :raises OSError: the disk is full or broken
    """
    repoint(session, leaving, entering, boot=boot)
    if entering is None:
        return []
    if boot:
        session.enter("starting units")
        session.systemd.start_later(entering.start)
        return []
    if queued:
        start_queued(session, leaving, entering)
        return []
    if live.tell(session, leaving, entering, must=not back):
        return []
    session.enter("starting units")
    services = [unit for unit in leaving.start if unit.endswith(".service")] if leaving else []
    before = session.systemd.look(services) if prove_stopped else {}
    complaints = _start(session, leaving, entering, _timeout_s(entering))
    _see_ended(session, before)
    return complaints


def repoint(
    session: Session, leaving: Content | None, entering: Content | None, *, boot: bool = False
) -> None:
    """Do the first half of :func:`switch`: pointer, units and what starts at boot; nothing is started.

    :raises FailedError: systemd does not answer, or a unit that is dropped does not stop
    :raises OSError: the disk is full or broken
    """
    session.enter("switching the pointer")
    if entering is None:
        store.remove_link(session.paths.current)
    else:
        store.switch_link(session.paths.current, f"generations/{entering.name}")
    dropped = sorted(
        (leaving.running if leaving else frozenset()) - (entering.running if entering else frozenset())
    )
    if dropped:
        session.enter("stopping dropped units")
        if not boot:
            session.systemd.stop(dropped, _timeout_s(entering or leaving))
        others = [unit for unit in dropped if leaving and unit not in leaving.units]
        if others:
            session.systemd.disable(others)
    if system.here().links_units:
        _link(session, leaving, entering)
    session.systemd.reload()
    if dropped:
        session.systemd.forget_failures(dropped)
    others = [unit for unit in entering.start if unit not in entering.units] if entering else []
    if others:
        session.systemd.enable(others)


def start_queued(session: Session, leaving: Content | None, entering: Content) -> None:
    """Do the second half of :func:`switch` without waiting for any unit to start.

    :raises FailedError: systemd does not answer, or a service whose sockets change does not stop
    """
    if live.tell(session, leaving, entering, must=False):
        return
    session.enter("starting units")
    kept = _prepared(session, leaving, entering, _timeout_s(entering))
    session.systemd.restart_later([unit for unit in entering.start if unit not in kept])
    if kept:
        session.systemd.start_later(kept)


def _timeout_s(content: Content | None) -> float:
    return content.health.progress_deadline_s if content else 60.0


def _link(session: Session, leaving: Content | None, entering: Content | None) -> None:
    session.enter("linking units")
    _unlink(session, set(leaving.units if leaving else ()) - set(entering.units if entering else ()))
    for unit in entering.units if entering else ():
        link = session.host.units / unit
        store.ensure_directory(link.parent)
        store.switch_link(link, str(session.paths.current / "units" / unit))
        if entering and unit in entering.install:
            link_at_boot(session.host.units, unit, entering.install[unit])


def _unlink(session: Session, units: set[str]) -> None:
    for unit in sorted(units):
        link = session.host.units / unit
        store.remove_link(link)
        link_at_boot(session.host.units, unit, [])
        if "/" in unit:
            with contextlib.suppress(OSError):  # others' drop-ins keep the directory
                _remove_empty(link.parent)


def _remove_empty(directory: Path) -> None:
    directory.rmdir()
    store.sync_directory(directory.parent)


def _see_ended(session: Session, before: Mapping[str, UnitSample]) -> None:
    """See that none of the runs of ``before`` is left, by the name that systemd gives every single run.

    A restart starts the new process only when all of the old ones have ended; this shows that it did restart.

    :raises FailedError: one is left
    """
    for name, unit in session.systemd.look(before).items():
        if unit.invocation == before[name].invocation and unit.active not in ("inactive", "failed"):
            raise FailedError(
                f"{name} of the generation before is still {unit.active}; no second one runs beside it",
                remedy=f"see `systemctl status {name}`; end it (systemctl kill -s KILL {name}), then repeat",
            )


def _start(session: Session, leaving: Content | None, entering: Content, timeout_s: float) -> list[str]:
    """Start every unit in order, waiting for each."""
    kept = _prepared(session, leaving, entering, timeout_s)
    complaints = []
    for unit in entering.start:
        run = session.systemd.start if unit in kept else session.systemd.restart
        complaint = run(unit, timeout_s)
        if complaint:
            complaints.append(complaint)
    return complaints


def _prepared(session: Session, leaving: Content | None, entering: Content, timeout_s: float) -> list[str]:
    """Make ready to start; return the sockets that did not change: they stay open, no connection is lost."""
    session.systemd.forget_failures(entering.start)
    before = leaving.unit_hashes if leaving else {}
    wanted_by_others = [
        unit
        for unit in entering.running - set(entering.start)
        if unit in before and before[unit] != entering.unit_hashes[unit]
    ]
    if wanted_by_others:
        # Who wants them starts them as they are now, and says itself whether it stops first (PartOf).
        session.systemd.stop(sorted(wanted_by_others), timeout_s)
    services = [unit for unit in entering.start if unit.endswith(".service")]
    changed = [
        unit
        for unit in entering.start
        if unit not in services and before.get(unit) != entering.unit_hashes.get(unit)
    ]
    if changed and services:
        # systemd refuses to open a socket while its service runs.
        session.systemd.stop(services, timeout_s)
    return [unit for unit in entering.start if unit not in services and unit not in changed]
