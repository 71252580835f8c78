"""Which stage may run: decided from records alone. Nothing here reads a file or starts a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.record import FORMAT, Outcome, Record, Step
from pipeline.source import Source

STAGES: Final = ("quality", "build", "integration", "deploy", "after")
"""In their order: each needs the records of all before it."""


def earlier(stage: str) -> tuple[str, ...]:
    """The stages before one."""
    return STAGES[: STAGES.index(stage)]


def flaw(stage: str, record: Record | None, source: Source) -> str | None:
    """Why a record does not stand for a stage of this commit; None: it does. A clause without the remedy."""
    if record is None:
        return f"{stage} has no record"
    if record.format != FORMAT or record.stage != stage:
        return f"the record of {stage} is one of {record.stage} in format {record.format}"
    if (record.commit, record.tree) != (source.commit, source.tree):
        return f"the record of {stage} is about commit {record.commit[:12]}, not {source.commit[:12]}"
    if record.outcome == "failed":
        failed = ", ".join(step.name for step in record.steps if step.outcome == "failed")
        return f"{stage} failed ({failed})"
    return None


def refusal(stage: str, records: Mapping[str, Record | None], source: Source) -> str | None:
    """Why a stage may not run, with the remedy, in one sentence; None: it may."""
    for before in earlier(stage):
        why = flaw(before, records.get(before), source)
        if why is not None:
            return f"{stage} cannot begin, since {why}: run `make pipeline-{before}`"
    return None


def changed(record: Record, found: Mapping[str, str]) -> str | None:
    """Why what a stage made is not as it made it, with the remedy; `found`: SHA-256 of what is there."""
    for name, wanted in record.made.items():
        now = found.get(name)
        if now != wanted:
            what = "is gone" if now is None else "has changed"
            return f"{name}, which {record.stage} made, {what}: run `make pipeline-{record.stage}`"
    return None


def unchecked(records: Sequence[Record]) -> str | None:
    """Why production may not be deployed to: what a stage could not look at. None: all was looked at."""
    open_points = [f"{record.stage} says {point}" for record in records for point in record.unchecked]
    if not open_points:
        return None
    return (
        f"production takes only what was looked at, and {'; '.join(open_points)}: "
        "run that stage where its data can be reached"
    )


def outcome_of(steps: Sequence[Step]) -> Outcome:
    """The outcome of a stage: that of its worst step."""
    found = {step.outcome for step in steps}
    if "failed" in found or not found:
        return "failed"
    return "not checked" if "not checked" in found else "passed"
