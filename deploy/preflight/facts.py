"""What checks may look at: what was asked of whom, what was said, and when. No secret is among it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """What could not be found out, and why."""

    why: str


class Section(msgspec.Struct, Generic[T], frozen=True):
    """One part of a host's answer: what it found, or why it could not look."""

    value: T | None = None
    error: str = ""


class EnvFile(msgspec.Struct, frozen=True):
    """An `.env`: its rights, and which of its settings have no value.

    mode, uid: None on Windows, which has `others` instead: what lets somebody else read it.
    """

    path: str
    service: str
    mode: int | None = None
    uid: int | None = None
    empty: list[str] = msgspec.field(default_factory=list)
    others: list[str] = msgspec.field(default_factory=list)


class Disk(msgspec.Struct, frozen=True):
    """A file system: free space and inodes, in percent."""

    path: str
    free: float
    inodes: float


class Directory(msgspec.Struct, frozen=True):
    """A service's own directory, and whether its user can write there."""

    path: str
    user: str
    writable: bool


class Interpreter(msgspec.Struct, frozen=True):
    """The Python of a service's runtime; `error`: why it does not start."""

    service: str
    version: str
    error: str


class Database(msgspec.Struct, frozen=True):
    """An SQLite file, and what SQLite says of it (`ok`)."""

    path: str
    said: str


class Signers(msgspec.Struct, frozen=True):
    """The file of allowed signers. mode, uid: None on Windows, where `others` may change it."""

    mode: int | None = None
    uid: int | None = None
    lines: list[str] = msgspec.field(default_factory=list)
    others: list[str] = msgspec.field(default_factory=list)


class Act(msgspec.Struct, frozen=True):
    """A halt or resume that a gateway recorded; `at`: Unix time; magic 0: the whole fleet."""

    at: float
    act: str
    magic: int


class Firing(msgspec.Struct, frozen=True):
    """An alert that fires."""

    alertname: str
    host: str
    severity: str


class AlertRule(msgspec.Struct, frozen=True):
    """A loaded alert rule; health is `ok` once it was evaluated well."""

    name: str
    health: str
    error: str


class ScrapeTarget(msgspec.Struct, frozen=True):
    """What Prometheus scrapes; health is `up` when it answers."""

    job: str
    host: str
    health: str
    error: str


class Silence(msgspec.Struct, frozen=True):
    """Alerts that somebody has silenced."""

    by: str
    why: str
    what: str
    until: str


class Deployment(msgspec.Struct, frozen=True):
    """A deployment of the fleet's record, newest first."""

    id: str
    started: str
    who: str
    outcome: str
    action: str | None = None
    why: str | None = None
    ended: str | None = None


class Backups(msgspec.Struct, frozen=True):
    """When each host was last backed up, and when a restore was last proven; Unix time."""

    hosts: dict[str, float]
    proven: float | None


class Published(msgspec.Struct, frozen=True):
    """What a reconciler publishes to the strategy beside it."""

    state: str
    reason: str
    magic: int
    digest: str
    stream: str
    seq: int
    synced_at: float


class Sections(msgspec.Struct, frozen=True, kw_only=True):
    """All that a host may answer. A section that it was not asked for, or did not answer, is None."""

    status: Section[dict[str, Any]] | None = None
    env: Section[list[EnvFile]] | None = None
    disks: Section[list[Disk]] | None = None
    writable: Section[list[Directory]] | None = None
    memory: Section[float] | None = None
    failed_units: Section[list[str]] | None = None
    in_force: Section[str] | None = None
    interpreters: Section[list[Interpreter]] | None = None
    databases: Section[list[Database]] | None = None
    signers: Section[Signers] | None = None
    reboot: Section[bool] | None = None
    health: Section[dict[str, Section[dict[str, Any]]]] | None = None
    state: Section[Published] | None = None
    reach: Section[dict[str, str]] | None = None
    clock: Section[bool] | None = None
    acts: Section[list[Act]] | None = None
    firing: Section[list[Firing]] | None = None
    rules: Section[list[AlertRule]] | None = None
    targets: Section[list[ScrapeTarget]] | None = None
    notified: Section[list[str]] | None = None
    silences: Section[list[Silence]] | None = None
    promtool: Section[str] | None = None
    runbook: Section[str] | None = None
    deployments: Section[list[Deployment]] | None = None
    backups: Section[Backups] | None = None


class HostAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a host said. `began`, `ended`: by its own clock."""

    began: float
    ended: float
    python: str
    sections: Sections


@dataclass(frozen=True)
class Asked:
    """A host's answer between two moments of the controller's clock (Unix time)."""

    answer: HostAnswer
    sent: float
    received: float


@dataclass(frozen=True)
class Host:
    """A host as the inventory describes it."""

    groups: tuple[str, ...]
    services: tuple[str, ...]
    settings: Mapping[str, Any]
    """Without the secret ones."""


@dataclass(frozen=True)
class Books:
    """What a gateway says of one magic number."""

    stream: str
    seq: int
    digest: str
    unresolved: tuple[str, ...]


@dataclass(frozen=True)
class GatewaySaid:
    """What a gateway says of itself."""

    state: str
    reason: str
    login: int | None
    trade_mode: str | None
    trade_allowed: bool | None
    halts: tuple[tuple[int, str, str], ...]
    """Magic number (0: all), reason, who."""
    breakers: tuple[int, ...]
    """Magic numbers whose circuit breaker is open."""
    books: Mapping[int, Books]
    dry_run: Mapping[int, bool]
    strangers: Mapping[int, int]
    """Magic number that no Inf host trades → positions and working orders of it."""
    at: float


@dataclass(frozen=True)
class PolicyFinding:
    """A broken rule of the policy."""

    rule: str
    severity: str
    scope: str
    text: str
    waived: str


@dataclass(frozen=True)
class PolicySaid:
    """What the policy says of the configuration."""

    findings: tuple[PolicyFinding, ...]
    problems: tuple[str, ...]
    """What is wrong with waivers."""
    unreadable: tuple[str, ...] = ()
    """What is wrong with rules that users have added."""


@dataclass(frozen=True)
class Project:
    """What was looked at in the project's own directory."""

    secrets_in_history: tuple[str, ...] | Unknown
    """Names of the vault's secrets whose text is in a commit, and which."""
    pages: Mapping[str, str]
    """Documents that people need, by path; one that is not there is missing."""
    old_pages: tuple[str, ...]
    """Generated documents that differ from the code."""
    sbom: Mapping[str, bool]
    """Bundle file → whether it holds a bill of materials."""


@dataclass(frozen=True)
class Facts:
    """All that a go/no-go looks at, at one time (Unix, the controller's clock)."""

    environment: str
    now: float
    hosts: Mapping[str, Host]
    answers: Mapping[str, Asked | Unknown]
    gateways: Mapping[str, GatewaySaid | Unknown]
    policy: PolicySaid | Unknown
    differs: Mapping[str, tuple[str, ...]] | Unknown
    """Host → services that a deployment would change."""
    project: Project
    webhook: bool = False
    """Whether Alertmanager itself posts alerts somewhere."""
    signed_webhook: bool = False
    """Whether the Hub's service posts them with a signature."""
    watchdog: bool = False
    """Whether a sign of life of the Hub is."""
    watchers: tuple[str, ...] = ()
    """Hosts that watch the Hub."""
    starting: int | None = None
    """Magic number whose start asks; None: nobody starts anything."""
    lock: str | None = None
    """Id under which who asks holds the fleet's lock; None: not at all."""

    def lifted_by_the_start(self, alert: str, host: str) -> bool:
        """Whether a critical alert tells only of what the start itself lifts, or of a halt of another number.

        A start looks at halts itself. One of everything is none of these, and what a gateway does not tell is
        not known to be.
        """
        said = self.gateways.get(host)
        if self.starting is None or not isinstance(said, GatewaySaid):
            return False
        if alert == "Mt5crsHalted":
            return all(magic != 0 for magic, _, _ in said.halts)
        return alert == "Mt5crsBreakerOpen" and set(said.breakers) <= {self.starting}

    def in_group(self, group: str) -> tuple[str, ...]:
        """Hosts of a group."""
        return tuple(name for name, host in self.hosts.items() if group in host.groups)
