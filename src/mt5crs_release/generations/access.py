"""The access list in force on this host: beside the generations, with a version that only rises.

A generation brings the list that was wanted with it; the file here is what the service reads. Deployments
change it in the transaction of their service, a rollback of code leaves it alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mt5crs_release.desired import access_list
from mt5crs_release.desired.access_list import AccessList, Changes
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.generations.state import Transaction
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import ServicePaths


def own(paths: ServicePaths, content: Content) -> AccessList | None:
    """Return the list that generation ``content`` brought; ``None``: it brings none.

    :raises FailedError: it cannot be read
    """
    if content.access is None:
        return None
    path = paths.generation(content.name) / content.access
    return _read(path, "stage the service again: that makes a new, complete generation")


def in_force(paths: ServicePaths) -> tuple[int, AccessList] | None:
    """Return version and content of the list in force; ``None``: there is none yet.

    :raises FailedError: it cannot be read
    """
    try:
        document = json.loads(paths.access.read_bytes())
        return int(document["serial"]), access_list.parse(json.dumps(document))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedError(
            f"{paths.access} cannot be used ({type(error).__name__}), so who may connect is not known",
            remedy="put a copy of it back; without one move it away and deploy: only that deployment's list "
            "counts then",
        ) from None


def describe(paths: ServicePaths, content: Content) -> dict[str, Any] | None:
    """Return what ``status`` tells of the list in force beside ``content``; ``None``: there is none.

    :raises PermissionError: whoever asks may not read it
    """
    found, wanted = in_force(paths), own(paths, content)
    if found is None or wanted is None:
        return None
    serial, now = found
    return {"serial": serial, "own": now == wanted, "list": now}


def begin(
    session: Session, transaction: Transaction, wanted: AccessList | None, leaving: Content | None
) -> None:
    """Let ``wanted`` count together with what it replaces, until ``transaction`` has ended.

    :param wanted: ``None``: the list stays as it is, however the transaction ends
    :raises FailedError: the list in force cannot be read
    :raises OSError: the disk is full or broken
    """
    if wanted is None:
        _note(session, transaction, None)
        return
    found = in_force(session.paths)
    now = found[1] if found else _before_this_tool(session.paths, leaving)
    left = access_list.narrowed(now, wanted)
    # First how to go on from here, then the list itself.
    _note(session, transaction, {"began": transaction.started_at, "before": left, "wanted": wanted})
    _put(session, access_list.both(left, wanted))


def end(session: Session, transaction: Transaction | None, *, confirmed: bool) -> None:
    """Let one list count alone: what ``transaction`` wanted, or what that left of the one before.

    Nothing to do when it does not change the list. Repeatable.

    :raises FailedError: what was written at the beginning cannot be read
    :raises OSError: the disk is full or broken
    """
    change = _changes(session.paths).get(transaction.generation) if transaction else None
    if change is not None and transaction is not None and change["began"] == transaction.started_at:
        _put(session, change["wanted" if confirmed else "before"])


def before(session: Session, name: str) -> AccessList | None:
    """Return the list to go back to when a deployment fails after ``name`` was confirmed; ``None``: none.

    :raises FailedError: it cannot be read
    """
    change = _changes(session.paths).get(name)
    return change["before"] if change is not None else None


def for_undo(session: Session, older: Content, *, give_back: bool) -> AccessList | None:
    """Return the list for a host that goes back as a whole to ``older``; ``None``: it stays as it is.

    :param give_back: the list of ``older`` is to count again
    :raises RefusedError: clients have had their key replaced since, and would not get in
    """
    then, found = own(session.paths, older), in_force(session.paths)
    if give_back or found is None:
        return then
    if then is None:
        require_kept(session, older)
        return None
    now = found[1]
    replaced = access_list.changes(now, then).replaced
    if replaced:
        raise RefusedError(
            f"{session.service} goes on refusing the former keys of {', '.join(replaced)}, so what ran "
            "before cannot log in: a rollback lets no key in again",
            remedy="let them in again with `undo --access` (pyinfra --data access=back, Ansible "
            "-e access=back), or deploy the older release with the new keys",
        )
    carried = access_list.carried(now, then)
    return None if carried == now else carried


def require_kept(session: Session, older: Content) -> None:
    """Check that a rollback to ``older`` lets nobody in again.

    :raises RefusedError: it is of a release that read its own list, and that list would
    """
    found = in_force(session.paths)
    if found is None or older.access is not None:
        return
    gains = access_list.changes(found[1], _before_this_tool(session.paths, older)).gains
    if gains:
        raise RefusedError(
            f"{session.service} {older.name} is of a release that keeps its access list itself, so it would "
            f"give access again: {', '.join(gains)}",
            remedy="deploy that release's code with the settings of today instead",
        )


def give_back(session: Session, content: Content, *, dry_run: bool = False) -> tuple[int, Changes]:
    """Make the list of ``content`` the one in force; return its version and who gains and loses by it.

    :raises RefusedError: the generation brings none, or nothing is in force that it could replace
    """
    then, found = own(session.paths, content), in_force(session.paths)
    if then is None or found is None:
        raise RefusedError(
            f"{session.service} {content.name} has no access list of its own",
            remedy="name a generation of this or a newer release (`mt5crs-release list`)",
        )
    serial, now = found
    made = access_list.changes(now, then)
    if not dry_run and now != then:
        serial = _put(session, then)
        session.record("access given back", generation=content.name, serial=serial, **made.as_json())
    return serial, made


def _put(session: Session, wanted: AccessList) -> int:
    """Write the list with the next version, unless it is in force already; return the version in force."""
    found = in_force(session.paths)
    if found is not None and found[1] == wanted:
        return found[0]
    serial = found[0] + 1 if found else 1
    document = {"serial": serial, **wanted}
    store.replace_file(session.paths.access, json.dumps(document, indent=1).encode() + b"\n", 0o644)
    return serial


def _note(session: Session, transaction: Transaction, change: dict[str, Any] | None) -> None:
    """Keep what the transaction's generation changes, beside what others did: one may be left again."""
    kept = _changes(session.paths)
    if change is None and transaction.generation not in kept:
        return
    kept.pop(transaction.generation, None)
    kept = {name: one for name, one in kept.items() if name in session.state.generations}
    if change is not None:
        kept[transaction.generation] = change
    store.replace_file(session.paths.access_changes, json.dumps(kept).encode(), 0o644)


def _changes(paths: ServicePaths) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(paths.access_changes.read_bytes())
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FailedError(
            f"{paths.access_changes} cannot be read ({type(error).__name__}); who may connect is not known",
            remedy=f"look at who may connect in {paths.access}, move the file away, then deploy again",
        ) from None


def _before_this_tool(paths: ServicePaths, leaving: Content | None) -> AccessList:
    """What counted as long as the list was a part of the generation."""
    path = paths.generation(leaving.name) / "clients.json" if leaving else None
    if path is None or not path.exists():
        return access_list.empty()
    return _read(path, "deploy again")


def _read(path: Path, remedy: str) -> AccessList:
    try:
        return access_list.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FailedError(f"{path} cannot be used: {error}", remedy=remedy) from None
