"""What a review speaks of: findings, the four parts of the score, the files that are looked at."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

Severity = Literal["P0", "P1", "P2", "P3"]
Part = Literal["zero_trust", "forensics", "security", "quality"]
SEVERITIES: Final[tuple[Severity, ...]] = ("P0", "P1", "P2", "P3")
PARTS: Final[dict[Part, int]] = {"zero_trust": 30, "forensics": 25, "security": 25, "quality": 20}
"""Points of every part; together 100."""
DEDUCTION: Final[dict[Severity, int]] = {"P0": 30, "P1": 10, "P2": 3, "P3": 1}
"""Points that one finding costs in its part."""


class ReviewError(Exception):
    """The review cannot be made or read; the text names cause and remedy. There is no verdict then."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, on one line of one file."""

    rule: str
    severity: Severity
    part: Part
    path: str
    line: int
    """From 1; 0 concerns the whole file."""
    message: str
    source: str
    """Which program or reviewer said it."""
    quote: str = ""
    """The line as it is in the file."""

    @property
    def id(self) -> str:
        """What stays the same while the line does: rule, file and text, not the line's number."""
        text = "\0".join((self.rule, self.path, self.quote.strip() or self.message))
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def in_order(findings: list[Finding]) -> list[Finding]:
    """The worst first, then by file and line: the same findings are always told in the same order."""
    return sorted(
        set(findings),
        key=lambda each: (each.severity, each.path, each.line, each.rule, each.message, each.source),
    )
