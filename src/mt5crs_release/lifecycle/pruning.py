"""Removing what nobody needs any more: old generations, then runtimes and bundles without a reference."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from mt5crs_release.bundles.runtime import lock_runtimes
from mt5crs_release.distribution.partial import PART
from mt5crs_release.distribution.release_store import ReleaseStore
from mt5crs_release.generations import machine
from mt5crs_release.generations.session import Session, open_session
from mt5crs_release.generations.state import Generation, ServiceState
from mt5crs_release.lifecycle.recovery import recover
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import TEMPORARY, Host

DEFAULT_KEEP = 3
_FRESH_S = 3600.0


def doomed(record: ServiceState, keep: int) -> list[Generation]:
    """Return the generations that may go, oldest first; pure.

    Never the current one, the one before it, the one a rollback goes to, the one just staged, or any of an
    open transaction; besides those the ``keep`` newest that can be rolled back to stay.
    """
    needed = {record.current, record.came_from, record.previous, record.desired}
    if record.transaction is not None:
        needed |= {record.transaction.generation, record.transaction.previous}
    others = [entry for entry in record.in_order() if entry.name not in needed]
    spare = [entry for entry in others if entry.state == machine.CONFIRMED]
    kept = {entry.name for entry in spare[len(spare) - keep :]} if keep else set()
    return [entry for entry in others if entry.name not in kept]


def prune(
    host: Host, service: str | None, keep: int, *, wait_s: float, dry_run: bool = False
) -> dict[str, Any]:
    """Prune ``service`` or all services, then unreferenced runtimes and bundles, on the Hub its store.

    :raises BusyError: another run is at work on one of the host's services
    """
    generations: dict[str, list[str]] = {}
    runtimes: list[str] = []
    bundles: list[str] = []
    with ExitStack() as stack:
        # All locks, in one order: a run that has just built a runtime may not have recorded it yet.
        sessions = [
            stack.enter_context(open_session(host, name, "prune", wait_s=wait_s))
            for name in host.of_machine()
        ]
        if host.runtimes.is_dir():
            stack.enter_context(lock_runtimes(host, "prune"))
        for session in sessions:
            if not dry_run:
                recover(session)
            if service in (None, session.service):
                generations[session.service] = _prune_generations(session, keep, dry_run=dry_run)
        gone = {name for names in generations.values() for name in names}
        left = [
            entry
            for session in sessions
            for entry in session.state.generations.values()
            if entry.name not in gone or not dry_run
        ]
        used = {name for entry in left for name in (entry.runtime, entry.data) if name}
        runtimes = _prune_runtimes(host, used, dry_run=dry_run)
        contents = {content for entry in left for content in (entry.bundle, entry.extra) if content}
        bundles = _prune_bundles(host, contents, dry_run=dry_run)
        stored = ReleaseStore(host).prune(keep, dry_run=dry_run)
    return {
        "changed": bool(any(generations.values()) or runtimes or bundles or stored),
        "removed": {"generations": generations, "runtimes": runtimes, "bundles": bundles, "store": stored},
    }


def _prune_generations(session: Session, keep: int, *, dry_run: bool) -> list[str]:
    going = [entry.name for entry in doomed(session.state, keep)]
    if dry_run or not going:
        return going
    # The record goes first: a directory without one is swept by the next run, never the other way round.
    for name in going:
        del session.state.generations[name]
    session.state.history = [name for name in session.state.history if name in session.state.generations]
    session.save()
    session.record("pruned", generations=going)
    for name in going:
        store.remove_tree(session.paths.generation(name))
    return going


def _prune_runtimes(host: Host, needed: set[str], *, dry_run: bool) -> list[str]:
    if not host.runtimes.is_dir():
        return []
    if not dry_run:
        store.sweep(host.runtimes)
    there = [path for path in sorted(host.runtimes.iterdir()) if path.is_dir()]
    going = [path for path in there if path.name not in needed and not path.name.startswith(TEMPORARY)]
    for path in going if not dry_run else []:
        store.remove_tree(path)
    return [path.name for path in going]


def _prune_bundles(host: Host, needed: set[str], *, dry_run: bool) -> list[str]:
    """Remove bundle files whose content no generation uses; a fresh upload may be about to be staged."""
    from mt5crs_release.bundles.bundle import peek_content

    names = [*host.bundles.glob("*.tar"), *host.bundles.glob(f"*{PART}")]
    old = [path for path in sorted(names) if path.stat().st_mtime < time.time() - _FRESH_S]
    going = [path for path in old if peek_content(path) not in needed]
    for path in going if not dry_run else []:
        path.unlink()
    if going and not dry_run:
        store.sync_directory(host.bundles)
    return [path.name for path in going]
