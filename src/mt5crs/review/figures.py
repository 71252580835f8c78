"""What is kept and told of a run's figures: one line of the log, a row of the record, a file of metrics."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.review.budget import Budget, BudgetError
from mt5crs.review.external_gate import Figures
from mt5crs.review.history import FILE, History, Run, Totals, totals
from mt5crs.review.model import ReviewError
from mt5crs.review.record import Record, whole
from mt5crs.service.logs import Log
from mt5crs.service.metrics import sample_lines
from mt5crs.settings.review import ReviewSettings

_SUMS: Final = (
    ("runs", "runs", "Reviews that were made."),
    ("passed", "passed", "Reviews that passed."),
    ("api_calls", "api_calls", "Calls of external reviewers."),
    ("failed_calls", "failed_calls", "Calls that brought no answer."),
    ("places", "call_places", "Files that would have fitted into the calls that were answered."),
    ("files", "files", "Files (pieces of large ones) that a reviewer had to be asked about."),
    ("cached_files", "cached_files", "Those whose answer was in the cache."),
    ("asked_files", "asked_files", "Those that a call was answered about."),
    ("tokens_in", "tokens_in", "Tokens of questions, as providers count."),
    ("tokens_out", "tokens_out", "Tokens of answers, as providers count."),
    ("price", "price_dollars", "What the calls cost."),
    ("price_unknown", "price_unknown_dollars", "Reserved for calls whose end is not known."),
    ("price_without", "price_without_dollars", "What the strong model would have cost for each file alone."),
)
"""Field of the sums, name of the counter, help."""


def keep(made: Record, settings: ReviewSettings, directory: Path, budget: Budget) -> None:
    """Record a run in `directory`, write the metrics, log one line.

    What cannot be kept is said in that line; the review itself stands.
    """
    told = made.external
    figures = told.figures if told is not None else Figures()
    run = Run(
        at=time.time(),
        tree=made.decision.tree,
        result=made.decision.result,
        external=made.decision.external,
        mode=made.decision.mode,
        seconds=made.seconds,
        places=(figures.api_calls - figures.failed_calls) * settings.batch_files,
        figures=figures,
        reviewer_down=told.reviewer_down if told is not None else None,
    )
    history = History(directory / FILE)
    trouble = None
    try:
        history.add(run)
        if settings.metrics_file:
            write_metrics(Path(settings.metrics_file), history.runs(), settings, budget)
    except (ReviewError, OSError) as error:
        trouble = str(error)
    try:
        left: float | None = round(budget.left(), 6)
    except BudgetError:
        left = None
    fields = {**msgspec.to_builtins(figures), "budget_left": left, "reviewer_down": run.reviewer_down}
    log = Log("review", stream=sys.stderr)
    log.info("review.done", tree=run.tree, result=run.result, mode=run.mode, seconds=run.seconds, **fields)
    if trouble is not None:
        log.warning("review.figures_not_kept", why=trouble)


def write_metrics(path: Path, runs: list[Run], settings: ReviewSettings, budget: Budget) -> None:
    """Replace the text file for the node exporter.

    :raises OSError: it cannot be written
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole(path, exposition(runs, totals(runs), settings, budget).encode())
    path.chmod(0o644)


def exposition(runs: list[Run], sums: Totals, settings: ReviewSettings, budget: Budget) -> str:
    """The metrics. What is not known (the budget's file is damaged, nobody was asked yet) is left out."""
    found = [
        (f"mt5crs_review_{name}_total", help_text, "counter", float(getattr(sums, field)))
        for field, name, help_text in _SUMS
    ]
    gauges: list[tuple[str, str, float | None]] = [
        ("budget_dollars", "US dollars that a day (UTC) may cost.", settings.budget_day)
    ]
    with contextlib.suppress(BudgetError):
        gauges += [
            ("budget_left_dollars", "US dollars left of that day.", budget.left()),
            ("budget_day_start_seconds", "When that day began, in Unix time.", budget.day_start()),
        ]
    if sums.reviewer_down is not None:
        gauges.append(
            ("reviewer_down", "Whether the first reviewer was down when last asked.", sums.reviewer_down)
        )
    if runs:
        last = runs[-1]
        gauges.append(("last_run_seconds", "When the last review ended, in Unix time.", last.at))
        if last.figures.files:
            gauges.append(("cache_hit_rate", "Of the last review.", last.figures.cache_hit_rate))
        if last.places:
            gauges.append(("batch_efficiency", "Of the last review.", last.figures.batch_efficiency))
        if last.figures.price_without:
            gauges.append(("cost_reduction_rate", "Of the last review.", last.figures.cost_reduction_rate))
    found += [
        (f"mt5crs_review_{name}", help_text, "gauge", float(value))
        for name, help_text, value in gauges
        if value is not None
    ]
    return "\n".join(sample_lines(found)) + "\n"
