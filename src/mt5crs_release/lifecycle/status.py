"""What a host runs: read without a lock, quickly, since every deployment that has nothing to do asks it.

Whoever is not root may ask, too. What they may not read is `null` and named in `unread`: not known is neither
changed nor none.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mt5crs_release.bundles import runtime_files, runtime_marker
from mt5crs_release.errors import FailedError, ReleaseError
from mt5crs_release.generations import access, before, generation, installed, machine, state
from mt5crs_release.generations.state import Generation, ServiceState
from mt5crs_release.records.deployments import Deployments
from mt5crs_release.storage import store
from mt5crs_release.storage.lock import boot_clock
from mt5crs_release.storage.paths import COMPLETE, CURRENT, STANDBY, Host, ServicePaths
from mt5crs_release.systems import system

FORMAT = 1


def status(host: Host, service: str | None) -> dict[str, Any]:
    """Return the state of ``service``, or of all services of the host."""
    services: dict[str, dict[str, Any]] = {}
    unread: list[str] = []
    starts: dict[str, list[str]] = {}
    of_runtime = functools.cache(runtime_files.problems)  # shared by generations, and listed below
    for name in [service] if service else host.services():
        paths = host.service(name)
        record = state.load(name, paths.state)
        services[name] = _describe(host, record, of_runtime)
        current = services[name]["current"]
        try:
            starts[name] = generation.start_units(paths.generation(current)) if current else []
        except PermissionError:
            unread.append(name)
    started = sorted({unit for units in starts.values() for unit in units})
    active = system.here().active(host.base, started) if started else {}
    for name, units in starts.items():
        services[name]["units"] = {unit: active.get(unit, "unknown") for unit in units}
    try:
        deployment = _deployment(host)
    except PermissionError:
        deployment = None
        unread.append("deployment")
    return {
        "host": platform.node(),
        "format": FORMAT,
        "services": services,
        "instance": host.instance,
        "instances": host.instances(),
        "deployment": deployment,
        "bundles": sorted(path.name for path in host.bundles.glob("*.tar")),
        "runtimes": _runtimes(host, of_runtime),
        "unread": unread,
    }


def _runtimes(host: Host, of_runtime: Callable[..., list[str]]) -> list[str]:
    """Those that generations can be staged with: complete, and unchanged as far as may be read."""
    found = []
    for path in sorted(host.runtimes.glob(f"*/{COMPLETE}")):
        try:
            changed = of_runtime(path.parent.resolve())
        except PermissionError:
            changed = []
        if not changed:
            found.append(path.parent.name)
    return found


def _deployment(host: Host) -> dict[str, Any] | None:
    """Who deploys the fleet now, on the Hub. PermissionError for ordinary users, who may not see it."""
    try:
        return Deployments(host).holder()
    except PermissionError:
        raise
    except (OSError, ReleaseError):
        return None


def list_generations(record: ServiceState) -> dict[str, Any]:
    """Return every generation of a service, oldest first."""
    return {
        "service": record.service,
        "generations": [
            {
                "generation": entry.name,
                "digest": entry.digest,
                "state": entry.state,
                "bundle": entry.bundle,
                "version": entry.version,
                "state_format": entry.state_format,
                "staged_at": entry.staged_at,
                "confirmed_at": entry.confirmed_at,
                "reason": entry.left_because,
                CURRENT: entry.name == record.current,
                "rollback": entry.state == machine.CONFIRMED and entry.name != record.current,
            }
            for entry in record.in_order()
        ],
    }


def _problems(directory: Path, of_runtime: Callable[..., list[str]]) -> list[str] | None:
    """Why what runs could not be started again as it was staged; ``None``: whoever asks may not know."""
    try:
        return generation.problems(directory, of_runtime)
    except PermissionError:
        return None


def _access(paths: ServicePaths, pointer: str | None) -> dict[str, Any] | None:
    """What is in force of the access list; ``None``: there is none, or whoever asks may not know."""
    try:
        return access.describe(paths, generation.read(paths.generation(pointer))) if pointer else None
    except (OSError, ReleaseError):
        return None


def _server_key(paths: ServicePaths, pointer: str | None) -> str | None:
    """The gateway's key by which what runs knows it; ``None``: by none, or whoever asks may not know."""
    try:
        return before.server_key(paths.generation(pointer)) if pointer else None
    except OSError:
        return None


def _ended(entry: Generation | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {"generation": entry.name, "state": entry.state, "reason": entry.left_because}


def _describe(host: Host, record: ServiceState, of_runtime: Callable[..., list[str]]) -> dict[str, Any]:
    paths = host.service(record.service)
    target = store.read_link(paths.current)
    pointer = None if target is None else target.rpartition("/")[2]
    entry = record.generations.get(pointer or "")
    problems = _problems(paths.generation(entry.name), of_runtime) if entry else []
    drop_ins: list[str] | None = None if problems is None else []
    if entry is not None and problems is not None:
        with contextlib.suppress(FailedError):  # its manifest is damaged, which is among the problems
            content = generation.read(paths.generation(entry.name))
            problems += installed.problems(host, paths, content)
            drop_ins = installed.drop_ins_of_others(host, content)
    transaction = record.transaction
    left = None
    if transaction is not None and transaction.deadline is not None:
        left = round(max(0.0, transaction.deadline - boot_clock()), 1)
    newest = record.in_order()[-1] if record.generations else None
    went = record.generations.get(record.last_left or "")
    return {
        "current": pointer,
        "digest": entry.digest if entry else None,
        "fixed": entry.fixed if entry else None,
        "bundle": entry.bundle if entry else None,
        "version": entry.version if entry else None,
        "protocol": runtime_marker.protocol(host, entry.runtime) if entry else None,
        "state": entry.state if entry else (newest.state if newest else None),
        "previous": transaction.previous if transaction else record.previous,
        "deployment": entry.deployment if entry else None,
        "deployed_at": entry.deployed_at if entry else None,
        "undid": transaction.undoes if transaction else record.undid,
        "deadline": transaction.deadline_at if transaction else None,
        "deadline_in_s": left,
        "intact": None if problems is None else entry is not None and not problems,
        "problems": problems,
        "drop_ins": drop_ins,
        "access": _access(paths, pointer),
        "server_key": _server_key(paths, pointer),
        "pending": transaction.generation if transaction else None,
        STANDBY: (store.read_link(paths.standby) or "").rpartition("/")[2] or None,
        "newest": _ended(newest),
        "left": _ended(went),
        "units": {},
    }
