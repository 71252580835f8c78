"""Asks the hosts: for their copies, which the Hub keeps, and to put one back."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deploy.backup import copies, on_host
from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.fleet.vault_password import former_passwords, read_password
from deploy.remote import script, windows_script
from mt5crs.foreign_text import shown_tree

_TIMEOUT_S = 300


class BackupError(RuntimeError):
    """It cannot be done; the text says why."""


def call(fleet: Fleet, host: str, *arguments: str, stdin: str = "") -> dict[str, Any]:
    """Run a verb of `on_host` on a host with Linux. Raises BackupError."""
    if host in fleet.in_group(WINDOWS):
        raise BackupError(
            f"{host} has Windows: its state is put back by hand (docs/backup.md); nothing was done"
        )
    try:
        return script.ask(fleet.hosts[host], on_host, *arguments, stdin=stdin, timeout_s=_TIMEOUT_S)
    except script.ScriptError as error:
        raise BackupError(f"{host}: {error}") from None


def hub_of(fleet: Fleet) -> str:
    """The host that keeps the backups. Raises BackupError."""
    hubs = fleet.in_group("hub")
    if not hubs:
        raise BackupError(f"{fleet.inventory} has no Hub to keep backups")
    return hubs[0]


def run(fleet: Fleet, who: str) -> dict[str, Any]:
    """Back every host up, and return the metadata. Hosts that could not be copied are in `missing`.

    Raises BackupError when the Hub cannot keep it; then nothing counts.
    """
    hub, password = hub_of(fleet), read_password(fleet.inventory)
    began = time.time()
    with ThreadPoolExecutor(max(1, len(fleet.hosts))) as pool:
        taken = dict(zip(fleet.hosts, pool.map(lambda host: _take(fleet, host), fleet.hosts), strict=True))
    missing = {host: why for host, why in taken.items() if isinstance(why, str)}
    kept = {
        host: copies.sealed(base64.b64decode(told["content"]), password)
        for host, told in taken.items()
        if not isinstance(told, str)
    }
    if not kept:
        raise BackupError(
            "no host could be copied: " + "; ".join(f"{host}: {why}" for host, why in missing.items())
        )
    digests = {host: hashlib.sha256(content).hexdigest() for host, content in kept.items()}
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began)) + f"-{whole[:8]}"
    for host, content in kept.items():
        call(fleet, hub, "keep", name, host, stdin=base64.b64encode(content).decode())
    metadata: dict[str, Any] = {
        "format": 1,
        "id": name,
        "time": began,
        "environment": fleet.environment,
        "by": who,
        "digest": whole,
        "missing": missing,
        "hosts": {
            host: {
                "sha256": digests[host],
                "bytes": len(content),
                "files": taken[host]["files"],  # type: ignore[index]
                "release": _release(copies.files_of(base64.b64decode(taken[host]["content"]))),  # type: ignore[index]
            }
            for host, content in kept.items()
        },
    }
    call(fleet, hub, "complete", name, stdin=json.dumps(metadata))
    removed = call(fleet, hub, "prune", str(fleet.hosts[hub]["fleet_backup_keep_days"]))["removed"]
    return metadata | {"removed": removed, "seconds": round(time.time() - began, 1)}


def _take(fleet: Fleet, host: str) -> dict[str, Any] | str:
    if host in fleet.in_group(WINDOWS):
        return _take_of_windows(fleet, host)
    try:
        return call(fleet, host, "take", str(fleet.hosts[host].get("fleet_instance") or ""))
    except BackupError as error:
        return str(error).removeprefix(f"{host}: ")


def _take_of_windows(fleet: Fleet, host: str) -> dict[str, Any] | str:
    """The same by way of Ansible. Several at once: each is a play of its own."""
    reply = windows_script.run(fleet, [host], on_host, "take")[host]
    if reply.status != 0:
        return reply.why
    told = reply.document
    return "it gave no answer that can be read" if told is None else told


def _release(files: Mapping[str, bytes]) -> dict[str, str]:
    """Service → generation that ran, from the host tool's own records."""
    found = {}
    for name, content in files.items():
        parts = name.split("/")
        if parts[0] == "config" and parts[-1] == "state.json" and len(parts) == 3:
            found[parts[1]] = str(json.loads(content).get("current") or "none")
    return found


def listed(fleet: Fleet) -> dict[str, Any]:
    """`backups`, oldest first, and `proven`: the last one that was restored and found good, or None."""
    told: dict[str, Any] = shown_tree(call(fleet, hub_of(fleet), "list"))
    return told


def chosen(fleet: Fleet, name: str | None) -> dict[str, Any]:
    """The metadata of a backup by its id or the beginning of it; None: the newest. Raises BackupError."""
    backups = listed(fleet)["backups"]
    fitting = [one for one in backups if str(one["id"]).startswith(name or "")]
    if not backups:
        raise BackupError("there is no backup yet; make one with `mt5crs … backup run`")
    if name is not None and len(fitting) != 1:
        there = ", ".join(one["id"] for one in backups[-5:])
        raise BackupError(f"{len(fitting) or 'no'} backups begin with {name!r}; the newest are {there}")
    found: dict[str, Any] = fitting[-1]
    return found


def copy_of(fleet: Fleet, backup: Mapping[str, Any], host: str) -> bytes:
    """The copy of a host in a backup, decrypted and checked. Raises BackupError."""
    of = backup["hosts"].get(host)
    if of is None:
        why = backup["missing"].get(host, f"there are {', '.join(backup['hosts'])}")
        raise BackupError(f"backup {backup['id']} has no copy of {host}: {why}")
    told = call(fleet, hub_of(fleet), "fetch", str(backup["id"]), host)
    try:
        password, former = read_password(fleet.inventory), former_passwords(fleet.inventory)
        return copies.opened(base64.b64decode(told["content"]), password, of["sha256"], former)
    except copies.CopyError as error:
        raise BackupError(f"the copy of {host} in {backup['id']}: {error}") from None
