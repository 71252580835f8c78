"""The decision of a review, from what both gates found. Pure: the same findings give the same bytes."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from mt5crs.review.local_gate import LocalResult
from mt5crs.review.model import Finding, in_order
from mt5crs.review.score import Score, score

Result = Literal["PASSED", "FAILED"]
Asked = Literal["passed", "failed", "not_asked"]
Mode = Literal["live", "recorded", "offline"]

LOCAL: Final = "MT5CRS_REVIEW_LOCAL"
EXTERNAL: Final = "MT5CRS_REVIEW_EXTERNAL"
"""What a verdict can vouch for (`verifiedLevels` of the summary)."""
BLOCKING: Final = ("P0", "P1")
"""Findings of the external reviewer that fail its gate."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment demands."""

    threshold: int = 90
    external_required: bool = True

    @property
    def digest(self) -> str:
        """SHA-256 of the policy, so that a verdict says by which it was reached."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class ExternalResult(msgspec.Struct, frozen=True, kw_only=True):
    """What gate 2 came to. `not_asked` is neither passed nor failed; `reasons` say why."""

    state: Asked
    mode: Mode
    findings: list[Finding] = msgspec.field(default_factory=list)
    reasons: list[str] = msgspec.field(default_factory=list)


NOT_ASKED: Final = ExternalResult(state="not_asked", mode="offline", reasons=["no external reviewer is set"])


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded and signed. Times and costs are no part of it."""

    tree: str
    base: str | None
    files: dict[str, str]
    """The blob of every file that was looked at; of a deleted one, the blob that was there before."""
    policy: Policy
    result: Result
    reasons: list[str]
    """Sentences that say why it failed; none when it passed."""
    levels: list[str]
    score: Score
    findings: list[Finding]
    programs: dict[str, str]
    external: Asked
    mode: Mode
    external_reasons: list[str]


def decide(
    tree: str,
    base: str | None,
    files: dict[str, str],
    local: LocalResult,
    external: ExternalResult,
    policy: Policy,
) -> Decision:
    """Judge. What the external reviewer says can only add findings, so it never makes the result better
    than gate 1 alone would be with the same policy.
    """
    findings = in_order([*local.findings, *external.findings])
    # Gate 1 by itself first: nothing said elsewhere is looked at to judge it.
    reasons = list(local.missing) + _failing(local.findings, policy)
    local_good = not reasons
    if local_good and external.findings:
        reasons += _failing(findings, policy)
    if external.state == "failed":
        reasons.append("the external reviewer found what must be mended first")
    elif external.state == "not_asked" and policy.external_required:
        why = "; ".join(external.reasons) or "no reason given"
        reasons.append(
            f"the external reviewer was not asked about everything ({why}), and the policy wants it"
        )
    elif external.mode == "recorded" and policy.external_required:
        reasons.append("the external review is recorded, not live, and the policy wants a live one")
    levels = [LOCAL] if local_good else []
    if external.state == "passed" and external.mode == "live":
        levels.append(EXTERNAL)
    return Decision(
        tree=tree,
        base=base,
        files=files,
        policy=policy,
        result="FAILED" if reasons else "PASSED",
        reasons=list(dict.fromkeys(reasons)),
        levels=levels,
        score=score(findings),
        findings=findings,
        programs={each.program: each.state for each in local.programs},
        external=external.state,
        mode=external.mode,
        external_reasons=list(external.reasons),
    )


def _failing(findings: list[Finding], policy: Policy) -> list[str]:
    worst = sum(finding.severity == "P0" for finding in findings)
    total = score(findings).total
    reasons = [f"{worst} finding{'s' if worst != 1 else ''} of severity P0"] if worst else []
    if total < policy.threshold:
        reasons.append(f"the score is {total}, at least {policy.threshold} is wanted")
    return reasons
