"""`mt5crs review watch`: the alerts of the review, judged from the record of runs, without Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from mt5crs.operate.report import Report, Skipped, exit_status, one_line_errors, show
from mt5crs.review import figures, making
from mt5crs.review.budget import BudgetError
from mt5crs.review.history import FILE, History, Run, totals
from mt5crs.review.model import ReviewError
from mt5crs.settings.monitoring import MonitoringSettings
from mt5crs.settings.review import ReviewSettings
from mt5crs.settings.schema import SettingsError, load

_HOUR_S, _DAY_S = 3600, 86_400


class OutsideError(Exception):
    """A figure is outside of its limit; the text has both, and what to do."""


def judge(
    runs: Sequence[Run], now: float, left: float | None, budget_day: float, limits: MonitoringSettings
) -> Report:
    """Judge the runs of the last day (calls: of the last hour) by the limits of the alerts.

    `left` is what is left of the day's budget in dollars; None: it is not known.
    """
    day = totals(run for run in runs if run.at > now - _DAY_S)
    hour = totals(run for run in runs if run.at > now - _HOUR_S)
    few = f"fewer than {limits.alert_review_files} files within a day"

    def calls() -> str:
        return _at_most(hour.api_calls, limits.alert_review_calls, "calls within an hour")

    def share(rate: float | None, files: int, least: float, what: str) -> Callable[[], str]:
        def check() -> str:
            if rate is None or files < limits.alert_review_files:
                raise Skipped(few)
            return _at_least(100 * rate, least, what)

        return check

    def budget() -> str:
        if left is None:
            raise OutsideError("what was spent cannot be read; mt5crs review stats says why")
        if budget_day <= 0:
            raise Skipped("the budget is 0: nobody is asked")
        return _at_least(100 * left / budget_day, limits.alert_review_budget_percent, "of the budget left")

    def reviewer() -> str:
        if day.reviewer_down is None:
            raise Skipped("it was not asked within a day")
        if day.reviewer_down:
            raise OutsideError("it was down when it was last asked; mt5crs review show says why")
        return "it answered when it was last asked"

    report = Report(title=f"reviews: {day.runs} within a day")
    hits = share(day.cache_hit_rate, day.files, limits.alert_review_hit_rate_percent, "from the cache")
    saved = share(day.cost_reduction_rate, day.files, limits.alert_review_savings_percent, "saved")
    filled = share(
        day.batch_efficiency,
        day.asked_files,
        limits.alert_review_batch_percent,
        "of the places in calls filled",
    )
    for name, check in (
        ("Mt5crsReviewCalls", calls),
        ("Mt5crsReviewHitRate", hits),
        ("Mt5crsReviewSavings", saved),
        ("Mt5crsReviewBatches", filled),
        ("Mt5crsReviewBudget", budget),
        ("Mt5crsReviewerDown", reviewer),
    ):
        report.run(name, check, (OutsideError,))
    return report


def _at_most(value: float, most: float, what: str) -> str:
    if value > most:
        raise OutsideError(f"{value:g} {what}, more than {most:g}")
    return f"{value:g} {what}, at most {most:g}"


def _at_least(percent: float, least: float, what: str) -> str:
    if percent < least:
        raise OutsideError(f"{percent:.1f} % {what}, less than {least:g}")
    return f"{percent:.1f} % {what}, at least {least:g}"


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(1, _DAY_S),
    metavar="SECONDS",
    help="Look again and again (default: once).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def watch(every: float | None, as_json: bool) -> None:
    """Judge calls, hit rate, savings, batches, budget and reviewer by the limits of the alerts.

    It also brings the metrics file up to date (REVIEW_METRICS_FILE). Exit status 0: all within their limits;
    1: one is outside (with --every: of the last look).
    """
    with one_line_errors(SettingsError, status=78):
        settings = load(ReviewSettings)
    status = 0
    try:
        while True:
            with one_line_errors(ReviewError, OSError):
                report = look(settings, making.cache_directory(), time.time())
            show(report, as_json=as_json)
            status = exit_status(report)
            if every is None:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        click.echo("", err=True)
    raise SystemExit(status)


def look(settings: ReviewSettings, directory: Path, now: float) -> Report:
    """Judge the runs that are recorded in `directory`, and write the metrics again if wanted.

    :raises ReviewError: the record cannot be read
    """
    runs, budget = History(directory / FILE).runs(), making.budget(settings, directory)
    if settings.metrics_file:
        figures.write_metrics(Path(settings.metrics_file), runs, settings, budget)
    try:
        left: float | None = budget.left()
    except BudgetError:
        left = None
    return judge(runs, now, left, settings.budget_day, MonitoringSettings())
