"""The audit log on the Hub, from the controller: records added, heads shown to others, all of it fetched.

Nothing that is done depends on it. What cannot be recorded is kept in `reports/audit-log/` and sent with the
next record; whoever did it is told.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
import os
import platform
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.fleet.connection import only_connection
from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.fleet.services import MACHINES
from deploy.fleet.vault_password import PROJECT
from deploy.remote import ssh
from mt5crs_release.records.audit_chain import Head, Witness

PENDING = PROJECT / "reports" / "audit-log"
_TIMEOUT_S = 20
_SHOWN_WITHIN_S = 8
"""A host that is down keeps whoever acts waiting for so long; it sees the next head."""
_FETCH_TIMEOUT_S = 120
NO_HUB = "no Hub in the inventory, so no host keeps an audit log"


class LogError(RuntimeError):
    """The log cannot be had; the text names cause and remedy."""


@dataclass(frozen=True)
class Reach:
    """How to reach the log's Hub and its witnesses; plain values, so that a task can hand it on."""

    hub: Mapping[str, Any] | None
    others: Mapping[str, Mapping[str, Any]]
    """Linux hosts besides the Hub, which are shown each new head."""
    pending: str
    """Directory of what could not be recorded yet."""


@dataclass(frozen=True, repr=False)
class Log:
    """All of a fleet's log, and what its hosts have seen of it; `silent`: host → why it was not asked."""

    records: bytes
    snapshots: bytes
    head: Head | None
    witnesses: tuple[Witness, ...]
    silent: Mapping[str, str]


def reach_of(fleet: Fleet) -> Reach:
    """The Hub of a fleet, and the hosts that are witnesses."""
    hubs, windows = fleet.in_group("hub"), fleet.in_group(WINDOWS)
    others = {
        host: only_connection(fleet.hosts[host])
        for host in fleet.in_group(MACHINES)
        if host not in hubs[:1] and host not in windows
    }
    place = hashlib.sha256(str(fleet.inventory.resolve()).encode()).hexdigest()[:8]
    hub = only_connection(fleet.hosts[hubs[0]]) if hubs else None
    return Reach(hub, others, str(PENDING / f"{fleet.environment}-{place}"))


def act(what: str, **told: Any) -> dict[str, Any]:
    """An act of whoever runs this, now."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    who = os.environ.get("SUDO_USER") or getpass.getuser()
    return {
        "what": what,
        "id": str(uuid.uuid4()),
        "at": now,
        "by": who,
        "controller": platform.node(),
        **told,
    }


def add(reach: Reach, acts: Sequence[Mapping[str, Any]]) -> str:
    """Record acts, and those still to be sent. Returns why they are not recorded; empty: they are."""
    if reach.hub is None:
        return NO_HUB
    waiting = _pending(reach)
    document = {"acts": [*(found for _, found in waiting), *acts]}
    reply = ssh.run(
        reach.hub,
        [ssh.TOOL, "audit-log", "append", "--json"],
        stdin=json.dumps(document),
        timeout_s=_TIMEOUT_S,
    )
    answer = reply.document
    if reply.status != 0 or answer is None or "hash" not in answer:
        return _kept(reach, acts, reply.why)
    for path, _ in waiting:
        path.unlink(missing_ok=True)
    show_head(reach, answer)
    return ""


def noted(reach: Reach, told: Mapping[str, Any] | None) -> str:
    """What the Hub said of the log when a deployment began or ended: a sentence when it was not written."""
    if told is None:
        return "the Hub's release tool keeps no audit log yet; the deployment that renews it begins one"
    if "error" in told:
        acts = [{**act(""), **found} for found in told.get("acts") or ()]
        return f"the audit log was not written: {_kept(reach, acts, str(told['error']))}"
    return ""


def show_head(reach: Reach, head: Mapping[str, Any]) -> int:
    """Let the other hosts see the end of the log; how many have."""
    if not reach.others or "hash" not in head:
        return 0
    text = json.dumps({name: head[name] for name in ("log", "n", "hash")})

    def one(variables: Mapping[str, Any]) -> bool:
        words = [ssh.TOOL, "audit-log", "witness", "--json"]
        return ssh.run(variables, words, stdin=text, timeout_s=_SHOWN_WITHIN_S).status == 0

    with ThreadPoolExecutor(min(32, len(reach.others))) as pool:
        return sum(pool.map(one, reach.others.values()))


def fetch(reach: Reach) -> Log:
    """Every byte of the log, every head that other hosts have seen. LogError when the Hub is silent."""
    if reach.hub is None:
        raise LogError(f"{NO_HUB}; name one in the group hub and deploy")
    words = [ssh.TOOL, "audit-log", "read", "--json"]
    reply = ssh.run(reach.hub, words, timeout_s=_FETCH_TIMEOUT_S)
    answer = reply.document
    if reply.status != 0 or answer is None or "records" not in answer:
        raise LogError(f"the Hub does not give its audit log ({reply.why}); is it deployed, and reachable?")
    try:
        records, snapshots = (
            zlib.decompress(base64.b64decode(answer[name])) for name in ("records", "snapshots")
        )
        head = Head(**answer["head"]) if answer.get("head") else None
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        raise LogError(f"the Hub's answer cannot be read ({error}); deploy the Hub anew") from None
    with ThreadPoolExecutor(max(1, min(32, len(reach.others)))) as pool:
        told = dict(zip(reach.others, pool.map(_witnessed, reach.others.items()), strict=True))
    silent = {host: found for host, found in told.items() if isinstance(found, str)}
    seen = tuple(one for found in told.values() if not isinstance(found, str) for one in found)
    return Log(records, snapshots, head, seen, silent)


def _witnessed(of: tuple[str, Mapping[str, Any]]) -> tuple[Witness, ...] | str:
    host, variables = of
    words = [ssh.TOOL, "audit-log", "witnessed", "--json"]
    reply = ssh.run(variables, words, timeout_s=_TIMEOUT_S)
    answer = reply.document
    if reply.status != 0 or answer is None or "witnessed" not in answer:
        return reply.why
    found = tuple(
        Witness(host, str(one["log"]), int(one["n"]), str(one["hash"]), str(one.get("at") or ""))
        for one in answer["witnessed"]
    )
    if answer.get("damaged"):
        return f"{answer['damaged']} of the heads that it has seen are damaged"
    return found


def _kept(reach: Reach, acts: Iterable[Mapping[str, Any]], why: str) -> str:
    """Keep acts for the next time; the sentence that says so."""
    directory = Path(reach.pending)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for found in acts:
            path = directory / f"{time.time_ns()}-{found['id']}.json"  # in the order in which they were done
            path.write_text(json.dumps(found, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        return f"{why}; nor could it be kept here ({error})"
    return f"{why}; it is kept in {directory} and sent with the next record"


def _pending(reach: Reach) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for path in sorted(Path(reach.pending).glob("*.json")):
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(document, dict) and document.get("what") and document.get("by"):
            found.append((path, document))
    return found
