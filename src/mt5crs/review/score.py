"""The score: 100 points in four parts, less what findings cost. Every point lost names a finding."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mt5crs.review.model import DEDUCTION, PARTS, Finding, Part, in_order


class Deduction(msgspec.Struct, frozen=True):
    """Points that a part lost by one finding; 0 when nothing was left to lose."""

    part: Part
    finding: str
    points: int


class Score(msgspec.Struct, frozen=True):
    """Points in all and by part, and where the rest went."""

    total: int
    parts: dict[Part, int]
    deductions: list[Deduction]


def score(findings: Iterable[Finding]) -> Score:
    """Count the points. More findings never make more of them."""
    left = dict(PARTS)
    deductions: list[Deduction] = []
    for finding in in_order(list(findings)):
        lost = min(DEDUCTION[finding.severity], left[finding.part])
        left[finding.part] -= lost
        deductions.append(Deduction(finding.part, finding.id, lost))
    return Score(sum(left.values()), left, deductions)
