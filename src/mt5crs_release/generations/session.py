"""One run of the tool on one service: lock held, leftovers swept, state loaded."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mt5crs_release.desired.name import is_service_name
from mt5crs_release.errors import RefusedError
from mt5crs_release.generations import generation, machine, state
from mt5crs_release.generations.generation import Content
from mt5crs_release.storage import store
from mt5crs_release.storage.journal import Journal, timestamp
from mt5crs_release.storage.lock import Lock, NoLock
from mt5crs_release.storage.paths import Host
from mt5crs_release.systems import system


class Session:
    """What a command works with while it holds the lock of ``service``."""

    def __init__(self, host: Host, service: str, lock: Lock) -> None:
        self.host = host
        self.service = service
        self.paths = host.service(service)
        self.lock = lock
        self.journal = Journal(self.paths.journal)
        self.state = state.load(service, self.paths.state)
        self.phase = "begun"
        self.phase_prefix = ""
        self.systemd: system.Services = service_manager(host, lambda: lock.beat(self.phase))
        self.began = time.monotonic()
        self.former_key = False
        """Whether what this run activates takes its gateway's former key, too, until it is confirmed.

        Only when the gateway gets the new one before that: else it would be healthy by the former one, and
        cut off by its next start.
        """
        self.standby: dict[str, Any] | None = None
        """How the standby phase of this run ended, as ``activate`` answers it."""
        self.shadow: dict[str, Any] | None = None
        """How its shadow stage ended, likewise."""
        self.changes: list[str] = []
        """Names of what this run's generation changes (:func:`mt5crs_release.lifecycle.changes.between`)."""
        self.live = False
        """Whether this run's generation was taken over by what runs, without a restart."""
        self.cutover: dict[str, dict[str, float]] = {}
        """What the switch of this run cost each unit (:func:`mt5crs_release.lifecycle.cutover.gaps`)."""

    def enter(self, phase: str) -> None:
        """Say what is being done now, in the lock."""
        self.phase = self.phase_prefix + phase
        self.lock.beat(self.phase)

    def record(self, event: str, **fields: object) -> None:
        """Append ``event`` to the journal with this run's token."""
        self.journal.append(event, service=self.service, token=self.lock.token[:8], **fields)

    def save(self) -> None:
        """Put the state on disk."""
        state.save(self.state, self.paths.state)

    def advance(self, name: str, event: str) -> str:
        """Move generation ``name`` along the table of transitions (not saved yet); return its new state."""
        entry = self.state.generations[name]
        entry.state = machine.advance(entry.state, event)
        if entry.state == machine.CONFIRMED and entry.confirmed_at is None:
            entry.confirmed_at = timestamp()
        return entry.state

    def content(self, name: str) -> Content:
        """Return the manifest's content of generation ``name``.

        :raises FailedError: it cannot be read
        """
        return generation.read(self.paths.generation(name))

    def pointer(self) -> str | None:
        """Return the generation that ``current`` points to."""
        target = store.read_link(self.paths.current)
        return None if target is None else target.rpartition("/")[2]

    def current_directory(self) -> str:
        """Return what ``{current}`` stands for in a health command."""
        return str(system.here().follow(self.paths.current))


def service_manager(host: Host, beat: Callable[[], None] = lambda: None) -> system.Services:
    """Return what starts and stops services on this host."""
    return system.here().services(host.base, beat)


@contextmanager
def open_session(
    host: Host, service: str, command: str, *, wait_s: float, create: bool = False, dry_run: bool = False
) -> Iterator[Session]:
    """Take the lock of ``service`` and load its state.

    :param create: a service that is not on this host yet is begun
    :raises BusyError: another run holds the lock
    :raises RefusedError: no such service
    """
    require_service(host, service, create=create)
    if dry_run and not host.service(service).base.exists():
        yield Session(host, service, NoLock())
        return
    with Lock(host.service(service).lock, command, wait_s) as lock:
        session = Session(host, service, lock)
        if lock.dead_owner is not None:
            owner = lock.dead_owner
            said = (
                f"`{owner.get('command', 'an unknown command')}` (pid {owner.get('pid', 'unknown')}, "
                f"phase '{owner.get('phase', 'unknown')}') died without finishing; taking its lock over"
            )
            with contextlib.suppress(OSError):
                os.write(2, f"mt5crs-release: {said}\n".encode())
            session.record("lock taken over", reason=said)
        _sweep(session)
        yield session


def require_service(host: Host, service: str, *, create: bool = False) -> None:
    """Check that ``service`` is a name and, unless it may be created, is on this host.

    :raises RefusedError: it is not; the message lists what there is
    """
    if not is_service_name(service):
        raise RefusedError(
            f"{service!r} is not a service name",
            remedy="use lower-case letters, digits and -, such as gateway",
        )
    if not create and not host.service(service).state.exists():
        there = ", ".join(host.services()) or "none"
        raise RefusedError(
            f"service {service} has no generation on this host; services there are: {there}",
            remedy="stage it first, or correct the name",
        )


def _sweep(session: Session) -> None:
    """Remove what interrupted runs left: temporary files, and generations that never got into the state."""
    owner = session.lock.dead_owner
    if owner is not None and isinstance(owner.get("pid"), int):
        store.sweep_of(session.host.units, owner["pid"])
        store.sweep_of(session.host.volatile_units, owner["pid"])
    store.sweep(session.paths.base)
    store.sweep(session.paths.generations)
    if session.paths.generations.is_dir():
        for path in session.paths.generations.iterdir():
            if path.name not in session.state.generations:
                store.remove_tree(path)
