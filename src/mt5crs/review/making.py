"""Making a review: the tree, both gates, the decision, the record."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from mt5crs.review import local_gate, switch
from mt5crs.review.budget import Budget
from mt5crs.review.cache import Cache
from mt5crs.review.decision import NOT_ASKED, Policy, decide
from mt5crs.review.external_gate import ExternalGate, Told
from mt5crs.review.model import ReviewError
from mt5crs.review.programs import Outcome
from mt5crs.review.record import Record
from mt5crs.review.text_rules import SECRETS
from mt5crs.review.tree import File, Tree, changed
from mt5crs.settings.review import ReviewSettings

External = Callable[[Sequence[File], AbstractSet[str]], Told]
"""Gate 2: asks about files, except those that hold a secret, and says what came of it."""


def cache_directory() -> Path:
    """Where programs and reviewers remember things: `$XDG_CACHE_HOME/mt5crs/review`, made if need be.

    :raises ReviewError: it cannot be made
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mt5crs" / "review"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReviewError(
            f"{path} cannot be made ({error.strerror}); set XDG_CACHE_HOME to a directory that can be written"
        ) from None
    return path


def external_gate(
    settings: ReviewSettings,
    directory: Path,
    *,
    trusted: bool = True,
    within_budget: bool = False,
    say: Callable[[str], None] | None = None,
) -> ExternalGate:
    """Gate 2 with its cache and its budget in `directory`."""
    tool = version("mt5crs")
    return ExternalGate(
        settings,
        cache(settings, directory, trusted=trusted),
        budget(settings, directory),
        tool,
        trusted=trusted,
        within_budget=within_budget,
        say=say,
        off=switch.why_off(directory, tool),
    )


def cache(settings: ReviewSettings, directory: Path, *, trusted: bool = True) -> Cache:
    """The answers that all reviews share which share `directory`."""
    most = int(settings.cache_mb * 1_000_000)
    return Cache(directory / "answers.sqlite", most, writable=trusted)


def budget(settings: ReviewSettings, directory: Path) -> Budget:
    """The money of all reviews that share `directory`."""
    return Budget(directory / "budget.sqlite", settings.budget_day, settings.budget_review)


def make(
    tree: Tree,
    base: Tree | None,
    policy: Policy,
    cache: Path,
    external: External | None = None,
    *,
    outcomes: Sequence[Outcome] | None = None,
    by: str = "",
) -> Record:
    """Review what differs between `base` and `tree` (all of it without a base).

    `outcomes`: what the programs of gate 1 have found where they are, when they are not here; `by`: there.

    :raises ReviewError: it cannot be made; there is no verdict then
    """
    began, since = datetime.now(timezone.utc), time.monotonic()
    files = changed(tree, base)
    local = local_gate.judge(tree, files, cache, outcomes)
    secret = {finding.path for finding in local.findings if finding.rule in SECRETS}
    told = None if external is None else external(files, secret)
    digests = {
        file.path: (tree.files.get(file.path) or (base or tree).files[file.path]).blob for file in files
    }
    result = told.result if told is not None else NOT_ASKED
    decision = decide(tree.id, base.id if base is not None else None, digests, local, result, policy)
    return Record(
        decision=decision,
        tool=version("mt5crs"),
        began=began.isoformat(timespec="seconds").replace("+00:00", "Z"),
        seconds=round(time.monotonic() - since, 3),
        lines=lines_of(files),
        external=told,
        programs_by=by,
    )


def lines_of(files: Sequence[File]) -> int:
    """Lines that were added or changed."""
    return sum(_lines(file) for file in files)


def _lines(file: File) -> int:
    if file.before is None:
        return len(file.text.splitlines())
    changes = difflib.unified_diff(file.before.splitlines(), file.text.splitlines(), n=0, lineterm="")
    return sum(line.startswith("+") for line in changes if not line.startswith("+++"))
