"""Whether the code and configuration on a host are still what was built and staged: every byte is read.

A timer asks once an hour (`host_units.py`), and the unit's failure is what the Hub alerts on: root alone can
forge the state of a unit, while figures in a file could be forged by whatever may write there.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from mt5crs_release import compiled
from mt5crs_release.bundles import runtime_files
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.generations import generation, installed
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import COMPLETE, Host

_TOOL = "the compiled release tool"


def check(host: Host) -> dict[str, Any]:
    """Compare what every service runs, and every runtime on the host, with its record.

    What differs is looked at twice: a run that prunes or activates in between is no change.

    :raises FailedError: something was changed; ``details`` has it by what it belongs to
    :raises RefusedError: whoever asks may not read all of it
    """
    try:
        found, seen = _look(host)
        if found:
            again, seen = _look(host)
            found = {name: problems for name, problems in again.items() if name in found}
    except PermissionError as error:
        raise RefusedError(
            f"{error.filename or 'a file'} may not be read, so whether it was changed is not known",
            remedy="use sudo",
        ) from error
    if found:
        raise FailedError(
            "; ".join(f"{name}: {', '.join(problems)}" for name, problems in found.items()),
            remedy=_remedy(found),
            details={"found": found, **seen},
        )
    return {"changed": False, "found": {}, **seen}


def _remedy(found: dict[str, list[str]]) -> str:
    changed = [name for name, problems in found.items() if not all(map(runtime_files.is_gone, problems))]
    if not changed:
        return (
            "deploy this host before anything on it restarts: its code is built for the Python that is there"
        )
    anew = f"remove {compiled.kept()}" if changed[0] == _TOOL else "deploy again"
    return f"find out who changed {changed[0]}; then {anew}: what was changed is built anew"


def _look(host: Host) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What differs, and what was looked at (``looked_at``) or has no record to judge it by (``unknown``)."""
    thorough = functools.cache(functools.partial(runtime_files.changes, read_all=True))

    def problems_of(runtime: Path, what: str) -> list[str]:
        return [*runtime_files.python_gone(runtime), *thorough(runtime, what)]

    found: dict[str, list[str]] = {}
    looked_at: list[str] = []
    unknown: list[str] = []
    for name in host.of_machine():
        pointer = store.read_link(host.service(name).current)
        if pointer is None:
            continue
        current = pointer.rpartition("/")[2]
        what = f"{name} {current}"
        looked_at.append(what)
        directory = host.service(name).generation(current)
        if not (problems := generation.problems(directory, problems_of)):
            problems = installed.problems(host, host.service(name), generation.read(directory))
        if problems and store.read_link(host.service(name).current) == pointer:
            found[what] = problems
    if compiled.kept().exists():
        looked_at.append(_TOOL)
        if problems := compiled.changed():
            found[_TOOL] = problems
    for marker in sorted(host.runtimes.glob(f"*/{COMPLETE}")):
        what = f"runtime {marker.parent.name}"
        problems = thorough(marker.parent.resolve(), "runtime")
        if problems and marker.exists():
            found[what] = problems
        elif not problems and not runtime_files.judged(marker.parent):
            unknown.append(what)
            continue
        looked_at.append(what)
    return found, {"looked_at": looked_at, "unknown": unknown}
