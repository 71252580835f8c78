"""The audit log of a fleet, kept on the Hub: who changed what, appended only and on disk when it returns.

`records.jsonl` is the chain (`audit_chain`), `config_changes.jsonl` a snapshot of the configuration for each
change of it, `head.json` where both end. Other hosts keep the heads that they were told (`witness.jsonl`), so
that an end that is cut off here is missed there. What is written is never taken back: a log that was tampered
with is gone on with, and the break stays to be found.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.records.audit_chain import (
    FORMAT,
    NOTHING,
    SNAPSHOT,
    Head,
    digest,
    line_of,
    parse,
    records_of,
)
from mt5crs_release.records.configuration_changes import Changes, between
from mt5crs_release.storage import store
from mt5crs_release.storage.journal import timestamp
from mt5crs_release.storage.lock import Lock
from mt5crs_release.storage.paths import Host

CONFIGURATION, SECRET, ACCESS, WAIVER = (
    "configuration.changed",
    "secret.changed",
    "access.changed",
    "waiver.changed",
)
_LOCK_WAIT_S = 10.0
_OWN = frozenset(("format", "log", "n", "before", "hub", "account", "written"))
"""What the Hub says of a record; nobody else does."""


class AuditLog:
    """The log kept on this host; also the heads of another Hub's log that this host has seen."""

    def __init__(self, host: Host) -> None:
        self.base = host.root / "var/lib/mt5crs/audit-log"
        self.records, self.snapshots = self.base / "records.jsonl", self.base / "config_changes.jsonl"
        self._head, self._witness = self.base / "head.json", self.base / "witness.jsonl"

    def append(
        self,
        acts: Sequence[Mapping[str, Any]],
        configuration: Mapping[str, Any] | None = None,
        deployment: str = "",
    ) -> dict[str, Any]:
        """Append a record for each act, and for what is new in a configuration; all of them or none.

        :param acts: `what`, `by`, and what is told; `id` and `at` when it happened earlier
        :param configuration: what `deploy.fleet.snapshot` makes; recorded when it is not the last one
        :param deployment: id of the deployment that brings the configuration
        :returns: `log`, `n` and `hash` of the head
        :raises RefusedError: an act is none
        :raises OSError: it could not be written; nothing was
        """
        for act in acts:
            if not act.get("what") or not act.get("by"):
                raise RefusedError("an act has no what or by", remedy="send both")
        store.ensure_directory(self.base, 0o700)
        with Lock(self.base / "lock", "audit-log append", _LOCK_WAIT_S):
            head, mended = self._mend()
            wanted = [dict(act) for act in acts]
            line = b""
            if configuration is not None:
                before = self._last_snapshot()
                changes = between(before, configuration)
                if changes is not None:
                    by = {name: acts[0][name] for name in ("by", "controller") if acts and acts[0].get(name)}
                    line, more = _of_configuration(head.snapshots + 1, configuration, changes, by, deployment)
                    wanted += more
            if any(act.get("id") for act in wanted):  # sent twice, perhaps, since no answer came
                known = {str(record["id"]) for record in records_of(_read(self.records))}
                wanted = [act for act in wanted if act.get("id") not in known]
            if mended and wanted:
                wanted[0]["mended"] = mended
            return self._written(head, wanted, line)

    def read(self) -> dict[str, Any]:
        """Return every byte of the log, for who verifies it elsewhere."""
        return {
            "records": _packed(_read(self.records)),
            "snapshots": _packed(_read(self.snapshots)),
            "head": self._read_head(strict=False),
        }

    def witness(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a head of the Hub's log.

        :raises RefusedError: it is none
        """
        if not isinstance(head.get("n"), int) or not head.get("hash") or not head.get("log"):
            raise RefusedError("this is no head of an audit log", remedy="send log, n and hash")
        store.ensure_directory(self.base, 0o700)
        seen = {name: head[name] for name in ("log", "n", "hash")} | {"at": timestamp()}
        with Lock(self.base / "lock", "audit-log witness", _LOCK_WAIT_S):
            _append(self._witness, _read_size(self._witness), line_of(seen) + b"\n")
        return {"changed": True, **seen}

    def witnessed(self) -> dict[str, Any]:
        """Return every head that this host has seen, oldest first; a damaged line is said to be one."""
        lines = [line for line in _read(self._witness).split(b"\n") if line]
        seen, damaged = [], 0
        for line in lines:
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if isinstance(found, dict) and isinstance(found.get("n"), int):
                seen.append({name: found.get(name) for name in ("log", "n", "hash", "at")})
            else:
                damaged += 1
        return {"witnessed": seen, "damaged": damaged}

    # --- below: called with the lock held ------------------------------------------------------------------

    def _mend(self) -> tuple[Head, dict[str, int]]:
        """The head to go on from. What a crash left after it is taken in if whole, cut off if torn."""
        content = _read(self.records)
        told = self._read_head(strict=True)
        if told is None:
            return self._head_of(content), {}
        head = Head(**told)
        mended = {}
        rest = content[head.size :]
        whole, _, torn = rest.rpartition(b"\n")
        for line in whole.split(b"\n") if whole else ():
            record = parse(line)
            if record is None or record["n"] != head.n + 1 or record.get("before") != head.hash:
                torn = b""  # not ours: it stays, to be found
                break
            of = record.get(SNAPSHOT) or {}
            snapshots = _read(self.snapshots)
            taken = of.get("n") == head.snapshots + 1 and len(snapshots) > head.snapshots_size
            head = Head(
                head.log,
                head.n + 1,
                digest(line),
                head.size + len(line) + 1,
                head.snapshots + taken,
                len(snapshots) if taken else head.snapshots_size,
            )
        if torn and len(content) == head.size + len(torn):
            _cut(self.records, head.size)
            mended["bytes"] = len(torn)
        over = _read_size(self.snapshots) - head.snapshots_size
        if over > 0 and len(content) >= head.size:
            _cut(self.snapshots, head.snapshots_size)  # its record was never written
            mended["snapshot_bytes"] = over
        return head, mended

    def _head_of(self, content: bytes) -> Head:
        """The head by the file itself: there is none, or head.json is gone (which `verify` then tells)."""
        lines = [line for line in content.split(b"\n") if line]
        last = parse(lines[-1]) if lines else None
        snapshots = _read(self.snapshots)
        count = snapshots.count(b"\n")
        if last is None:
            return Head(str(uuid.uuid4()), len(lines), NOTHING, len(content), count, len(snapshots))
        return Head(
            str(last.get("log")), int(last["n"]), digest(lines[-1]), len(content), count, len(snapshots)
        )

    def _last_snapshot(self) -> dict[str, Any] | None:
        lines = [line for line in _read(self.snapshots).split(b"\n") if line]
        try:
            found = json.loads(lines[-1]) if lines else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _written(self, head: Head, acts: Iterable[Mapping[str, Any]], snapshot: bytes) -> dict[str, Any]:
        told, lines, n, before = timestamp(), [], head.n, head.hash
        for act in acts:
            n += 1
            record = {
                **{name: value for name, value in act.items() if name not in _OWN},
                "format": FORMAT,
                "log": head.log,
                "n": n,
                "before": before,
                "hub": platform.node(),
                "account": os.environ.get("SUDO_USER") or "root",
                "written": told,
            }
            record.setdefault("id", str(uuid.uuid4()))
            record.setdefault("at", told)
            lines.append(line_of(record))
            before = digest(lines[-1])
        if not lines:
            return {"changed": False, "log": head.log, "n": head.n, "hash": head.hash}
        snapshots, snapshots_size = head.snapshots, head.snapshots_size
        if snapshot:
            snapshots_size = _append(self.snapshots, _read_size(self.snapshots), snapshot + b"\n")
            snapshots += 1
        size = _append(self.records, _read_size(self.records), b"\n".join(lines) + b"\n")
        new = Head(head.log, n, before, size, snapshots, snapshots_size)
        store.replace_file(self._head, json.dumps(vars(new), sort_keys=True).encode() + b"\n", 0o600)
        return {"changed": True, "log": new.log, "n": new.n, "hash": new.hash}

    def _read_head(self, *, strict: bool) -> dict[str, Any] | None:
        try:
            found = json.loads(self._head.read_bytes())
            return vars(Head(**found))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            if strict and not self.records.exists():
                raise FailedError(
                    f"{self._head} cannot be read, and there is no log beside it",
                    remedy="put the directory back from a backup of the Hub, or move it away",
                ) from None
            return None


def _of_configuration(
    number: int,
    configuration: Mapping[str, Any],
    changes: Changes,
    by: Mapping[str, Any],
    deployment: str,
) -> tuple[bytes, list[dict[str, Any]]]:
    """The line of the snapshot, and the records that tell of it."""
    line = line_of({"n": number, "at": timestamp(), "deployment": deployment, **by, **configuration})
    common = {**by, "deployment": deployment}
    records = [
        {
            **common,
            "what": CONFIGURATION,
            SNAPSHOT: {"n": number, "sha256": digest(line)},
            "changed": changes.settings,
            "files": changes.files,
            **({"first": True} if changes.first else {}),
            **({"rekeyed": True} if changes.rekeyed else {}),
        }
    ]
    for what, changed in ((SECRET, changes.secrets), (ACCESS, changes.access)):
        if changed:
            records.append({**common, "what": what, "of_snapshot": number, "changed": changed})
    if changes.waivers:
        records.append({**common, "what": WAIVER, "of_snapshot": number, "files": changes.waivers})
    return line, records


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _read_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _append(path: Path, size: int, content: bytes) -> int:
    """Append in one write, on disk when it returns; the size then. On an error nothing of it stays."""
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if size and _last_byte(descriptor, size) != b"\n":
            content = b"\n" + content  # a line that something else left torn stays its own
        try:
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if new:
        store.sync_directory(path.parent)
    return size + len(content)


def _last_byte(descriptor: int, size: int) -> bytes:
    os.lseek(descriptor, size - 1, os.SEEK_SET)  # what is written goes to the end all the same
    return os.read(descriptor, 1)


def _cut(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()
