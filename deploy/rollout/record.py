"""What one run does to the fleet, as it happens: which host, which service, which step, how it ended.

Both engines fill a `Rollout`; `deploy.reporting.report` shows it. Nothing here talks to a host.
"""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from deploy.fleet.services import NAMES
from deploy.rollout.transfers import CONTROLLER, Transfer
from mt5crs.foreign_text import shown, shown_tree

RECORD_FORMAT = 2
"""Of record.json, and of the records on the Hub; raised when a field changes its meaning."""

DEPLOYMENT = "MT5CRS_DEPLOYMENT"
"""Environment variable with the id that hosts record for a deployment; a run's own id unless it is given."""


@dataclass(frozen=True)
class Failure:
    """The first thing that went wrong on a host: where, at which step, why, and what to do."""

    host: str
    step: str
    message: str
    remedy: str = ""
    journal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Hosts have a say in all of it."""
        for name, lines in (("host", False), ("step", False), ("message", True), ("remedy", True)):
            object.__setattr__(self, name, shown(getattr(self, name), lines=lines))
        object.__setattr__(self, "journal", tuple(shown(line) for line in self.journal))


@dataclass
class ServiceResult:
    """How one service on one host ended up."""

    host: str
    service: str
    generation: str = ""
    previous: str | None = None
    state: str = "unchanged"
    changed: bool = False
    seconds: float = 0.0
    version: str | None = None
    previous_version: str | None = None
    changes: list[str] = field(default_factory=list)
    """Names of what the generation changes: settings, files, `code`; never a value."""
    review: Mapping[str, Any] | None = None
    """Why the host took the bundle: its verdict, or who overrode that; None: it was not asked for."""

    @property
    def waits(self) -> bool:
        """Whether it waits for its confirmation, and goes back by itself without one."""
        return self.state == "provisional"


@dataclass(frozen=True)
class Span:
    """One step of one service on one host: when it began (seconds since the run did), how long it took.

    `service` is empty for what concerns the host as a whole (baseline). The last four are as the release
    tool answered them, where it did: how long requests waited, the comparison in standby, the shadow stage,
    the health gate.
    """

    host: str
    service: str
    step: str
    began: float
    seconds: float
    outcome: str
    cutover: Mapping[str, Any] | None = None
    standby: Mapping[str, Any] | None = None
    shadow: Mapping[str, Any] | None = None
    health: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Phase:
    """One line of the narration: what was done on how many hosts, how long it took in seconds."""

    name: str
    hosts: int
    changed: int
    seconds: float
    failed: int = 0
    skipped: bool = False


@dataclass
class Rollout:
    """One run over a fleet."""

    engine: str
    environment: str
    action: str = "deploy"
    dry: bool = False
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    who: str = field(default_factory=lambda: os.environ.get("SUDO_USER") or getpass.getuser())
    controller: str = field(default_factory=platform.node)
    why: str = ""
    command: str = field(default_factory=lambda: shlex.join(sys.argv))
    """As it was typed, quoted for a shell."""
    inventory: str = ""
    """The inventory's file, as this run names it."""
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    strategy: str = ""
    plan: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    results: dict[tuple[str, str], ServiceResult] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    put_back: list[str] = field(default_factory=list)
    way_back: dict[tuple[str, str], str] = field(default_factory=dict)
    """(host, service) → generation to which it can return, as it said when it was asked."""
    undoes: str = ""
    """Id of the deployment that a rollback of the fleet undoes."""
    interrupted: bool = False
    lock_lost: bool = False
    deployer_seen: bool = False

    @property
    def failed(self) -> bool:
        """Whether anything went wrong so far; what was activated must then be put back everywhere."""
        return bool(self.failures) or self.interrupted

    def result(self, host: str, service: str) -> ServiceResult:
        """The entry of a service on a host, made on first use."""
        return self.results.setdefault((host, service), ServiceResult(host, service))

    def spent(
        self,
        host: str,
        service: str,
        step: str,
        since: float,
        outcome: str,
        answer: Mapping[str, Any] | None = None,
        until: float | None = None,
    ) -> None:
        """Record a step that is over.

        since, until: time.monotonic() when it began and ended (default: now). answer: the release tool's.
        """
        told = {name: _mapping(answer, name) for name in ("cutover", "standby", "shadow", "health")}
        ended = time.monotonic() if until is None else until
        began, seconds = round(max(0.0, since - self.began), 3), round(ended - since, 3)
        self.spans.append(Span(host, service, step, began, seconds, outcome, **told))

    def brought(self, transfers: Iterable[Transfer]) -> None:
        """Note bundles that have just come; what a host fetched from the Hub is a step of it."""
        for one in transfers:
            self.transfers.append(one)
            if one.source != CONTROLLER:
                outcome = "changed" if one.bytes else "unchanged"
                self.spent(one.host, "", "upload", time.monotonic() - one.seconds, outcome)

    def seen(self, host: str, status: Mapping[str, Any]) -> None:
        """Note what the release tool's status says that ran on a host before this run."""
        self.deployer_seen = self.deployer_seen or bool(status.get("deployment"))
        for service, now in status.get("services", {}).items():
            if (host, service) not in self.results:
                entry = self.result(host, service)
                entry.generation, entry.previous = str(now.get("current") or ""), now.get("previous")
                entry.version = entry.previous_version = now.get("version")

    def foretell(self, told: Mapping[str, Mapping[str, str]]) -> None:
        """Host → service → what its plan does with it; noted by a run that only looks."""
        if self.dry:
            for host, services in told.items():
                for service, state in services.items():
                    self.result(host, service).state = state

    def fail(self, failure: Failure) -> None:
        """Record what went wrong; several steps of one host's failure count once."""
        if failure not in self.failures:
            self.failures.append(failure)

    def require_complete(self) -> None:
        """Note as a failure what a run that believes to have succeeded has left half done."""
        if self.dry or self.failed:
            return
        missing = {"staged": "activated", "provisional": "confirmed"}
        for entry in self.results.values():
            if entry.state in missing:
                step = f"{'activate' if entry.state == 'staged' else 'confirm'} {entry.service}"
                message = f"it is {entry.state}, and was never {missing[entry.state]} in this run"
                remedy = f"look at it with `mt5crs-release status {entry.service}` on the host, and run again"
                self.fail(Failure(entry.host, step, message, remedy))

    def touched(self, host: str) -> list[ServiceResult]:
        """Services on a host to be put back when the run fails, last service first.

        What this run has made provisional, and what it has confirmed by then; nothing once it has lost the
        fleet's lock.
        """
        if self.lock_lost:
            return []
        order = {service: position for position, service in enumerate(NAMES)}
        found = [
            result
            for result in self.results.values()
            if result.host == host
            and (result.state == "provisional" or (result.state == "confirmed" and result.changed))
        ]
        return sorted(found, key=lambda result: -order.get(result.service, len(order)))

    def went_back(self, host: str) -> bool:
        """Whether a service of the host has left what this run gave it."""
        return any(
            result.host == host and result.state in ("reverted", "failed") for result in self.results.values()
        )

    @property
    def outcome(self) -> str:
        """How the run ended, in one word."""
        if self.interrupted:
            return "interrupted"
        if self.failures:
            return "failed"
        if self.dry:
            return "checked"
        changed = any(result.changed for result in self.results.values())
        return "changed" if changed or any(phase.changed for phase in self.phases) else "unchanged"

    def record(self) -> dict[str, Any]:
        """The run as plain values for record.json."""
        record: dict[str, Any] = shown_tree(self._record())
        return record

    def _record(self) -> dict[str, Any]:
        return {
            "format": RECORD_FORMAT,
            "id": self.id,
            "engine": self.engine,
            "action": self.action,
            "environment": self.environment,
            "who": self.who,
            "controller": self.controller,
            "why": self.why,
            "command": self.command,
            "dry": self.dry,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 2),
            "outcome": self.outcome,
            "strategy": self.strategy,
            "plan": self.plan,
            "steps": list(self.steps),
            "phases": [vars(phase) for phase in self.phases],
            "services": [vars(result) for result in sorted_results(self.results.values())],
            "spans": [vars(span) for span in sorted(self.spans, key=lambda span: (span.began, span.host))],
            "transfers": [vars(one) for one in self.transfers],
            "failures": [vars(failure) | {"journal": list(failure.journal)} for failure in self.failures],
            "put_back": list(self.put_back),
        }


def sorted_results(results: Iterable[ServiceResult]) -> list[ServiceResult]:
    """Results in the order of the services, then of the hosts' names."""
    order = {service: position for position, service in enumerate(NAMES)}
    return sorted(results, key=lambda result: (order.get(result.service, len(order)), result.host))


def _mapping(answer: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """A part of an answer, if it has it; tools of an older release have not."""
    value = (answer or {}).get(name)
    return value if isinstance(value, Mapping) else None


def failure_of(host: str, step: str, answer: dict[str, Any] | None, text: str) -> Failure:
    """Failure from what the release tool answered (its JSON, or its raw output when it is none)."""
    if answer is None:
        lines = [line for line in text.strip().splitlines() if line.strip()]
        reason = lines[-1] if lines else "no answer"
        return Failure(host, step, reason, "look at `journalctl -n 50` and /opt/mt5crs on the host")
    error = answer.get("error") or {}
    message = str(error.get("message") or answer.get("reason") or "it failed and gave no reason")
    return Failure(
        host, step, message, str(error.get("remedy") or ""), tuple(map(str, answer.get("journal") or ()))
    )
