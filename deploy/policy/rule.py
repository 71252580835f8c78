"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from deploy.policy.facts import Facts

Severity = Literal["P0", "P1", "P2", "P3"]
SEVERITIES: tuple[Severity, ...] = ("P0", "P1", "P2", "P3")
REFUSING: frozenset[Severity] = frozenset(("P0", "P1"))
"""Severities that refuse a deployment; the others are only shown."""
FLEET = "fleet"
"""Scope of what concerns no single host."""


@dataclass(frozen=True)
class Broken:
    """One place where a rule is broken. scope: a host, or FLEET."""

    scope: str
    text: str


@dataclass(frozen=True)
class Rule:
    """One rule. `look` is pure and gives every place where the rule is broken."""

    id: str
    severity: Severity
    title: str
    reason: str
    remedy: str
    look: Callable[[Facts], Iterable[Broken]]
    waivable: bool = True


@dataclass(frozen=True)
class Finding:
    """A rule that is broken. waiver: the reason why it is allowed for a time; empty: it is not."""

    rule: str
    severity: Severity
    scope: str
    text: str
    remedy: str
    waiver: str = ""

    @property
    def refuses(self) -> bool:
        """Whether a deployment is refused because of it."""
        return not self.waiver and self.severity in REFUSING
