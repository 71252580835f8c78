"""Whether the hosts are going to take the bundle: asked on the controller, before any of them is touched.

The hosts check it themselves all the same, with the same code.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from deploy.fleet.rendering import render
from deploy.rollout.generation import BundleError, Desired
from mt5crs_release.bundles import verdict
from mt5crs_release.errors import ReleaseError


def require(host: str, want: Desired, variables: Mapping[str, Any]) -> None:
    """Check the verdicts that go to a host, or the override in their place; nothing where none is wanted.

    Raises BundleError when the host would refuse the bundle, or the strategy's.
    """
    if want.bundle is None or want.review is None:
        return
    why = _refusal(
        json.dumps(want.review, sort_keys=True),
        want.bundle.content,
        want.extra.content if want.extra else None,
        render("baseline/allowed_signers.j2", variables),
    )
    if why:
        raise BundleError(f"{host} would refuse the bundle: {why}")


@cache
def _refusal(review: str, content: str, extra: str | None, allowed_signers: str) -> str:
    """Why hosts with these signers refuse it; empty: they do not. Asked once for all hosts that are alike."""
    with tempfile.TemporaryDirectory(prefix="mt5crs-review-") as scratch:
        signers = Path(scratch) / "allowed_signers"
        signers.write_text(allowed_signers)
        try:
            verdict.admit(json.loads(review), content, signers, datetime.now(timezone.utc), extra)
        except ReleaseError as error:
            return f"{error.message}; {error.remedy}"
        return ""
