"""The fleet's deployments, kept on the Hub: who deploys now (the fleet's lock), and a record of each.

One deployer at a time. The holder says with heartbeats that it lives; they are counted on this host's boot
clock, so no change of the date moves them. A holder is replaced by rule only: its last heartbeat is older
than it promised, or it said itself that it is gone; both records then tell of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt5crs_release.errors import BusyError, FailedError, RefusedError, ReleaseError
from mt5crs_release.records.audit_log import AuditLog
from mt5crs_release.storage import store
from mt5crs_release.storage.journal import timestamp
from mt5crs_release.storage.lock import Lock, boot_clock, boot_id
from mt5crs_release.storage.paths import Host

FORMAT = 1
KEEP = 200
"""Records kept; those of deployments that nobody has finished or undone are kept beyond it."""
RUNNING, INTERRUPTED = "running", "interrupted"
SHOWN = 60
"""Records of which the Hub's page is told."""
_UNRECORDED = ("unchanged", "checked")
_LOCK_WAIT_S = 10.0
_LIMIT_S = 60.0
_SUMMARY = (
    "id", "started", "ended", "who", "controller", "engine", "action", "environment", "why", "outcome",
    "sentence", "seconds", "phase", "strategy",
)  # fmt: skip


def age_s(holder: Mapping[str, Any], clock: float, boot: str) -> float:
    """Return for how many seconds a holder was silent (at least, when this host was rebooted meanwhile)."""
    return max(0.0, clock - float(holder["clock"])) if holder.get("boot_id") == boot else clock


def is_gone(holder: Mapping[str, Any], clock: float, boot: str) -> bool:
    """Tell whether a holder may be replaced."""
    return bool(holder.get("gone")) or age_s(holder, clock, boot) > float(holder.get("limit_s", _LIMIT_S))


class Deployments:
    """The deployments kept on this host."""

    def __init__(self, host: Host) -> None:
        self.base = host.root / "var/lib/mt5crs/deployments"
        self._holder = self.base / "holder.json"
        self._shown = self.base.parent / "deployments.json"
        self._log = AuditLog(host)

    def holder(self) -> dict[str, Any] | None:
        """Return who deploys now, with the seconds since its last heartbeat and whether it is gone."""
        found = _read(self._holder)
        if found is None:
            return None
        clock, boot = boot_clock(), boot_id()
        return {**found, "age_s": round(age_s(found, clock, boot), 1), "gone": is_gone(found, clock, boot)}

    def open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Take the fleet's lock and begin a record.

        :param request: the record so far; ``id``, ``who``, ``controller``, ``started`` at least;
            ``configuration``: what is to be deployed, for the audit log
        :raises BusyError: another deployer holds the lock; the message names it
        :raises RefusedError: the request is none
        """
        missing = [name for name in ("id", "who", "controller", "started") if not request.get(name)]
        if missing:
            raise RefusedError(
                f"the deployment has no {', '.join(missing)}",
                remedy="use deploy.py or site.yml, which send them",
            )
        request = dict(request)
        configuration = request.pop("configuration", None)
        store.ensure_directory(self.base.parent)
        store.ensure_directory(self.base, 0o700)
        with self._locked("open"):
            found = self.holder()
            if found is not None and not found["gone"] and found["id"] != request["id"]:
                raise _busy(found)
            took_over = None
            if found is not None and found["id"] != request["id"]:
                took_over = {name: found.get(name) for name in ("id", "who", "controller", "phase", "age_s")}
            record = {**request, "format": FORMAT, "outcome": RUNNING, "took_over": took_over}
            phase = str(request.get("phase") or "begun")
            holder = {name: request.get(name) for name in ("id", "who", "controller", "engine", "action")}
            limit = float(request.get("limit_s") or _LIMIT_S)
            # The lock first: a crash before the record is written leaves a holder that grows old.
            self._hold({**holder, "since": timestamp(), "limit_s": limit}, phase)
            died = self._leave_behind(found, request)
            self._write(record)
            self._show()
            begun = _act("deployment.begun", request, hosts=list(request.get("hosts") or ()))
            return {
                "changed": True,
                "id": request["id"],
                "took_over": took_over,
                "unfinished": self._unfinished(str(request["id"])),
                "audit_log": self._logged([begun, *died], configuration, str(request["id"])),
            }

    def beat(self, name: str, phase: str | None, provisional: list[str], gone: str | None) -> dict[str, Any]:
        """Say that the deployment ``name`` lives, and in which phase it is.

        :param provisional: ``HOST:SERVICE:GENERATION`` of what waits for its confirmation
        :param gone: why there will be no more heartbeats
        :raises RefusedError: it does not hold the lock any more
        """
        with self._locked("beat"):
            found = _read(self._holder)
            if found is None or found["id"] != name:
                raise RefusedError(
                    f"deployment {name} does not hold the fleet's lock"
                    + (f": {_named(found)} does" if found else ": nobody does"),
                    remedy="stop; what it left unconfirmed goes back by itself, or the next run undoes it",
                    details={"lost": True, "holder": found},
                )
            found["gone"] = gone
            if provisional:
                found["provisional"] = provisional
            self._hold(found, phase or str(found["phase"]))
            return {"changed": True, "id": name, "phase": found["phase"]}

    def close(self, name: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the final record of deployment ``name`` and give the lock back if it has it still.

        :param document: ``record``; ``settled``: what became of deployments that others left unfinished
        """
        record = dict(document.get("record") or {})
        if record.get("id") != name:
            raise RefusedError("this is the record of another deployment", remedy="send its own record")
        with self._locked("close"):
            acts = [self._settle(entry, record) for entry in document.get("settled") or ()]
            begun = self._find(name)
            found = _read(self._holder)
            if record.get("outcome") == INTERRUPTED and found is not None and found["id"] == name:
                # For the next run, which finishes what was decided and undoes the rest.
                record |= {"phase": found["phase"], "provisional": found.get("provisional") or []}
            kept = {key: begun[key] for key in ("took_over", "taken_over_by") if begun and begun.get(key)}
            if record.get("outcome") in _UNRECORDED and not kept:
                if begun:
                    self._path(begun).unlink(missing_ok=True)
            else:
                self._write({**record, **kept, "format": FORMAT, "ended": timestamp()})
            held = found is not None and found["id"] == name
            if held:
                self._holder.unlink()
            store.sync_directory(self.base)
            self._prune()
            self._show()
            ended = _act("deployment.ended", record, **_outcome(record))
            return {"changed": True, "id": name, "held": held, "audit_log": self._logged([*acts, ended])}

    def listed(self) -> dict[str, Any]:
        """Return a summary of every deployment, newest first, and who deploys now."""
        return {
            "deployments": [{name: record.get(name) for name in _SUMMARY} for record in self._records()],
            "holder": self.holder(),
        }

    def show(self, name: str) -> dict[str, Any]:
        """Return the record of one deployment by its id or the beginning of it.

        :raises RefusedError: none or several begin so
        """
        fitting = [record for record in self._records() if str(record["id"]).startswith(name)]
        if len(fitting) != 1:
            there = ", ".join(str(record["id"])[:8] for record in self._records()[:8]) or "none"
            raise RefusedError(
                f"{len(fitting) or 'no'} deployments begin with {name!r}",
                remedy=f"choose from the newest: {there} (`mt5crs-release deployment list`)",
            )
        return fitting[0]

    # --- below: called with the store's lock held, or only reading -----------------------------------------

    def _locked(self, what: str) -> Lock:
        return Lock(self.base / "lock", f"deployment {what}", _LOCK_WAIT_S)

    def _hold(self, holder: dict[str, Any], phase: str) -> None:
        now = {"phase": phase, "heartbeat": timestamp(), "clock": boot_clock(), "boot_id": boot_id()}
        holder.update(now)
        store.replace_file(self._holder, _text({"format": FORMAT, **holder}), 0o600)

    def _logged(
        self, acts: list[dict[str, Any]], configuration: Mapping[str, Any] | None = None, deployment: str = ""
    ) -> dict[str, Any]:
        """The head of the audit log with these acts in it; ``error``: why they are not.

        A log that cannot be written keeps no deployment from going on, or from ending: its run says so.
        """
        try:
            return self._log.append(acts, configuration, deployment)
        except (ReleaseError, OSError, KeyError, TypeError, ValueError) as error:
            told = error.message if isinstance(error, ReleaseError) else f"{type(error).__name__}: {error}"
            return {"error": told, "acts": acts}

    def _leave_behind(
        self, found: Mapping[str, Any] | None, request: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Close the records of deployments that died: nobody but the holder can be running."""
        died = []
        for record in self._records():
            if record.get("outcome") != RUNNING or record["id"] == request["id"]:
                continue
            record["outcome"], record["ended"] = INTERRUPTED, timestamp()
            silent = ""
            if found is not None and found["id"] == record["id"]:
                record["phase"], record["provisional"] = found["phase"], found.get("provisional") or []
                silent = f" in phase '{found['phase']}'; last heard of at {found['heartbeat']}"
            record["taken_over_by"] = {name: request.get(name) for name in ("id", "who", "controller")}
            record["sentence"] = (
                f"Died{silent}; {request['who']} on {request['controller']} took the fleet's lock over."
            )
            self._write(record)
            died.append(_act("deployment.died", request, died=record["id"], sentence=record["sentence"]))
        return died

    def _unfinished(self, but: str) -> list[dict[str, Any]]:
        return [
            record
            for record in self._records()
            if record.get("outcome") == INTERRUPTED and not record.get("settled") and record["id"] != but
        ]

    def _settle(self, entry: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
        record = self._find(str(entry.get("id")))
        if record is not None:
            record["outcome"], record["settled"] = str(entry.get("outcome", "undone")), by["id"]
            record["sentence"] = f"{record.get('sentence') or ''} {entry.get('sentence') or ''}".strip()
            self._write(record)
        told = {name: entry.get(name) for name in ("outcome", "sentence")}
        return _act("deployment.settled", by, settled=entry.get("id"), **told)

    def _records(self) -> list[dict[str, Any]]:
        paths = sorted(self.base.glob("*.record.json"), reverse=True) if self.base.is_dir() else []
        return [record for path in paths if (record := _read(path)) is not None]

    def _find(self, name: str) -> dict[str, Any] | None:
        return next((record for record in self._records() if record["id"] == name), None)

    def _path(self, record: Mapping[str, Any]) -> Path:
        known = next(self.base.glob(f"*-{record['id']}.record.json"), None)
        if known is not None:
            return known
        began = "".join(letter for letter in str(record["started"]) if letter.isalnum())
        return self.base / f"{began[:15]}-{record['id']}.record.json"

    def _write(self, record: Mapping[str, Any]) -> None:
        store.replace_file(self._path(record), _text(record), 0o600)

    def _show(self) -> None:
        """Tell the Hub's page, which may not read the records: how each went, and when; no setting.

        It is told anew by the next one, so what keeps it from being written keeps no deployment.
        """
        told = []
        for record in self._records()[:SHOWN]:
            phases = [
                {name: phase.get(name) for name in ("name", "hosts", "changed", "failed", "seconds")}
                for phase in record.get("phases") or ()
                if isinstance(phase, dict) and not phase.get("skipped")
            ]
            failures = [
                {name: failure.get(name) for name in ("host", "step", "message")}
                for failure in record.get("failures") or ()
                if isinstance(failure, dict)
            ]
            summary = {name: record.get(name) for name in _SUMMARY}
            told.append({**summary, "phases": phases, "failures": failures})
        with contextlib.suppress(OSError):
            store.replace_file(self._shown, _text({"format": FORMAT, "deployments": told}), 0o644)

    def _prune(self) -> None:
        for record in self._records()[KEEP:]:
            if record.get("outcome") != INTERRUPTED or record.get("settled"):
                self._path(record).unlink(missing_ok=True)


def _act(what: str, of: Mapping[str, Any], **told: Any) -> dict[str, Any]:
    """An act of a deployment, for the audit log."""
    common = ("action", "engine", "environment", "controller", "why")
    return {
        "what": what,
        "by": str(of.get("who") or "unknown"),
        "deployment": of["id"],
        **{name: of[name] for name in common if of.get(name)},
        **told,
    }


def _outcome(record: Mapping[str, Any]) -> dict[str, Any]:
    """How a deployment ended and what runs now where it changed something: names only, never a value."""
    told = ("host", "service", "generation", "previous", "state", "version", "changes", "review")
    services = [
        {name: entry[name] for name in told if entry.get(name)}
        for entry in record.get("services") or ()
        if entry.get("changed") or entry.get("changes")
    ]
    failures = [
        {name: entry.get(name) for name in ("host", "step", "message")}
        for entry in record.get("failures") or ()
    ]
    return {
        "outcome": record.get("outcome"),
        "sentence": record.get("sentence"),
        "services": services,
        "failures": failures,
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not found.get("id"):
        raise FailedError(
            f"{path} is no record of format {FORMAT}",
            remedy="move it away (it only tells of a deployment), then repeat the command",
        )
    return found


def _text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode() + b"\n"


def _named(holder: Mapping[str, Any]) -> str:
    return f"{holder.get('who')} on {holder.get('controller')} ({holder.get('engine')}, id {holder['id']})"


def _busy(holder: Mapping[str, Any]) -> BusyError:
    left = max(0.0, float(holder["limit_s"]) - float(holder["age_s"]))
    return BusyError(
        f"another deployment holds the fleet's lock: {_named(holder)} since {holder.get('since')}, in phase "
        f"'{holder.get('phase')}', last heartbeat {holder['age_s']:g} s ago",
        remedy="wait for it, or stop it on its controller (Ctrl-C); if that is dead, the lock may be taken "
        f"over in {left:.0f} s: run again then",
        details={"holder": dict(holder)},
    )
