"""Whether the hosts are going to take the bundle: asked on the controller, before any of them is touched.

The hosts check it themselves all the same, with the same code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.fleet.rendering import render
from deploy.rollout.generation import BundleError, Desired
from mt5crs_release import verdict
from mt5crs_release.errors import ReleaseError


def require(host: str, want: Desired, variables: Mapping[str, Any]) -> None:
    """Check the verdicts that go to a host, or the override in their place; nothing where none is wanted.

    Raises BundleError when the host would refuse the bundle, or the strategy's.
    """
    if want.bundle is None or want.review is None:
        return
    extra = want.extra.content if want.extra else None
    with tempfile.TemporaryDirectory(prefix="mt5crs-review-") as scratch:
        signers = Path(scratch) / "allowed_signers"
        signers.write_text(render("baseline/allowed_signers.j2", variables))
        try:
            verdict.admit(want.review, want.bundle.content, signers, datetime.now(timezone.utc), extra)
        except ReleaseError as error:
            raise BundleError(f"{host} would refuse the bundle: {error.message}; {error.remedy}") from None
