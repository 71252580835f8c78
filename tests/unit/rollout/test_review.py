"""A bundle that hosts would refuse is refused before any of them is touched, and an override is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.reporting.report_page import services
from deploy.rollout.answer import ToolAnswer, apply
from deploy.rollout.generation import Bundle, BundleError, Desired
from deploy.rollout.record import Rollout
from deploy.rollout.review import require

OVERRIDE = {"by": "ann", "reason": "hotfix", "until": "2999-01-01T00:00:00Z"}
REVIEW = {"threshold": 90, "external": True, "verdict": "", "override": None}
VARIABLES: dict[str, Any] = {"baseline_release_signers": [], "baseline_review_signers": []}
BUNDLE = Bundle(Path("dist/x.tar"), "ab" * 32, None)


def wanted(review: dict[str, Any] | None) -> Desired:
    return Desired("strategy", "{}", BUNDLE, "cd" * 32, 60, review=review)


def test_a_bundle_without_verdict_is_refused_on_the_controller() -> None:
    with pytest.raises(
        BundleError, match=r"inf-01 would refuse the bundle: there is no verdict.*--bundle FILE"
    ):
        require("inf-01", wanted(REVIEW), VARIABLES)
    require("inf-01", wanted({**REVIEW, "override": OVERRIDE}), VARIABLES)
    require("inf-01", wanted(None), VARIABLES)


def test_an_override_is_in_the_record_and_in_the_report() -> None:
    rollout = Rollout("pyinfra", "production")
    told = {"changed": True, "generation": "0002-x", "review": {"override": OVERRIDE, "instead_of": "none"}}
    apply(rollout, ToolAnswer("inf-01", "stage", "strategy", good=True, document=told))
    (entry,) = rollout.record()["services"]
    assert entry["review"]["override"] == OVERRIDE
    (row,) = services(rollout.record())
    assert row["changes"] == "no verdict: ann lets it in until 2999-01-01T00:00:00Z: hotfix"
