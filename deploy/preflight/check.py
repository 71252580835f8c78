"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from deploy.preflight.facts import Asked, Facts, GatewaySaid, Unknown

Category = Literal["security", "system", "data", "operation", "documents"]
Priority = Literal["P0", "P1", "P2", "P3"]
Verdict = Literal["PASS", "WARN", "FAIL"]
CATEGORIES: tuple[Category, ...] = ("security", "system", "data", "operation", "documents")
PRIORITIES: tuple[Priority, ...] = ("P0", "P1", "P2", "P3")
FLEET = "fleet"
"""Where a finding is that concerns no single host."""


@dataclass(frozen=True)
class Finding:
    """What is not as it should be, and where. unknown: it could not be looked at, which is no better."""

    scope: str
    text: str
    verdict: Verdict = "FAIL"
    unknown: bool = False


@dataclass
class Look:
    """What one check sees of the facts, and what it notes down.

    Who goes through hosts and gateways by way of it cannot pass over one that did not answer.
    """

    facts: Facts
    findings: list[Finding] = field(default_factory=list)
    seen: int = 0
    """How many things were looked at; none is no PASS."""
    oldest: float | None = None
    """When the oldest evidence was made; Unix time."""

    def fail(self, scope: str, text: str) -> None:
        """Note what is wrong."""
        self.findings.append(Finding(scope, text))

    def warn(self, scope: str, text: str) -> None:
        """Note what wants attention, and is no failure."""
        self.findings.append(Finding(scope, text, "WARN"))

    def unknown(self, scope: str, why: str) -> None:
        """Note what could not be looked at."""
        self.findings.append(Finding(scope, f"not known: {why}", unknown=True))

    def saw(self, at: float | None = None) -> None:
        """Count one thing that was looked at; `at`: when the evidence of it was made, if not just now."""
        self.seen += 1
        made = self.facts.now if at is None else at
        self.oldest = made if self.oldest is None else min(self.oldest, made)

    def answers(self, group: str = "all") -> Iterator[tuple[str, Asked]]:
        """Every host of a group that answered; the others are noted as unknown."""
        names = tuple(self.facts.hosts) if group == "all" else self.facts.in_group(group)
        if not names:
            self.unknown(FLEET, f"the inventory has no host in the group {group}")
        for host in names:
            asked = self.facts.answers.get(host, Unknown("it was not asked"))
            if isinstance(asked, Unknown):
                self.unknown(host, asked.why)
                continue
            self.saw(asked.received)
            yield host, asked

    def sections(self, name: str, group: str = "all") -> Iterator[tuple[str, Any]]:
        """What a section of every host of a group holds; where it is missing, that is noted as unknown."""
        for host, asked in self.answers(group):
            section = getattr(asked.answer.sections, name)
            if section is None or section.error or section.value is None:
                self.unknown(
                    host, section.error if section and section.error else f"it did not tell its {name}"
                )
                continue
            yield host, section.value

    def services(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(host, service, what the release tool says) of every service that the inventory puts on a host."""
        for host, status in self.sections("status"):
            for service in self.facts.hosts[host].services:
                found = (status.get("services") or {}).get(service)
                if found is None or not found.get("current"):
                    self.fail(host, f"{service} was never deployed")
                else:
                    yield host, service, found

    def health(self, service: str, group: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """What a service says of itself on every host of a group."""
        for host, told in self.sections("health", group):
            one = told.get(service)
            if one is None or one.error or one.value is None:
                self.unknown(host, f"{service} does not answer ({one.error if one else 'it was not asked'})")
            else:
                yield host, one.value

    def gateways(self) -> Iterator[tuple[str, GatewaySaid]]:
        """Every gateway that answered its operator."""
        names = self.facts.in_group("gateway")
        if not names:
            self.unknown(FLEET, "the inventory has no gateway")
        for host in names:
            said = self.facts.gateways.get(host, Unknown("it was not asked"))
            if isinstance(said, Unknown):
                self.unknown(host, said.why)
                continue
            self.saw(said.at)
            yield host, said


@dataclass(frozen=True)
class Check:
    """One check. `look` is pure: it notes what it finds in a `Look`."""

    id: str
    priority: Priority
    title: str
    reason: str
    remedy: str
    look: Callable[[Look], None]

    @property
    def category(self) -> Category:
        """What it is about, by the middle of its id."""
        return _CATEGORY[self.id.split("-")[1]]


_CATEGORY: dict[str, Category] = {
    "SEC": "security",
    "SYS": "system",
    "DAT": "data",
    "OPS": "operation",
    "DOC": "documents",
}
