"""`mt5crs review watch` judges as the alerts do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from mt5crs.__main__ import main
from mt5crs.review import making, watching
from mt5crs.review.history import FILE, Run
from mt5crs.settings.monitoring import MonitoringSettings
from mt5crs.settings.review import ReviewSettings
from tests.unit.review.test_figures import run

RULES = Path(__file__).resolve().parents[3] / "templates" / "monitoring" / "alerts.yml.j2"
NOW = 1_000_000.0


def verdicts(*runs: Run, left: float | None = 5.0) -> dict[str, str]:
    report = watching.judge(runs, NOW, left, 5.0, MonitoringSettings())
    return {each.name.removeprefix("Mt5crsReview"): each.verdict for each in report.findings}


def test_it_judges_what_the_alerts_are_about() -> None:
    named = set(re.findall(r"alert: (Mt5crsReview\w+)", RULES.read_text()))
    assert {f"Mt5crsReview{name}" for name in verdicts()} == named


def test_a_day_as_it_should_be_and_one_that_is_not() -> None:
    assert set(verdicts().values()) == {"SKIP", "PASS"}
    good = {"files": 200, "cached_files": 180, "asked_files": 120, "price": 1.0, "price_without": 10.0}
    fine = run(NOW - 10, False, 150, api_calls=30, **good)
    assert set(verdicts(fine).values()) == {"PASS"}
    bad = run(NOW - 10, True, 900, files=200, asked_files=180, api_calls=401, price=6.0, price_without=10.0)
    assert set(verdicts(bad, left=0.9).values()) == {"FAIL"}
    # What is over is over: calls after an hour, the rest after a day.
    earlier = run(
        NOW - 4000, True, 900, files=200, asked_files=180, api_calls=401, price=6.0, price_without=10.0
    )
    assert verdicts(earlier)["Calls"] == "PASS"
    assert verdicts(earlier)["HitRate"] == "FAIL"
    assert "FAIL" not in verdicts(run(NOW - 90_000, True, 900, files=200, api_calls=401)).values()


def test_few_files_tell_nothing_and_money_that_is_not_known_is_no_money() -> None:
    few = run(NOW - 10, None, 50, files=99, asked_files=10, price=10.0, price_without=10.0)
    found = verdicts(few, left=None)
    assert (found["HitRate"], found["Savings"], found["Batches"]) == ("SKIP", "SKIP", "SKIP")
    assert (found["Budget"], found["erDown"]) == ("FAIL", "SKIP")


def test_the_command_judges_and_brings_the_metrics_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "review.prom"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "REVIEW_METRICS_FILE": str(text)}
    told = CliRunner().invoke(main, ["review", "watch"], env=environment)
    assert (told.exit_code, "reviews: 0 within a day" in told.output) == (0, True)
    assert "mt5crs_review_runs_total 0" in text.read_text()
    directory = tmp_path / "mt5crs/review"
    day = ReviewSettings().budget_day
    making.budget(ReviewSettings(budget_review=day), directory).reserve(day - 0.05)
    told = CliRunner().invoke(main, ["review", "watch", "--json"], env=environment)
    assert told.exit_code == 1
    assert json.loads(told.stdout)["verdict"] == "FAIL"
    assert "mt5crs_review_budget_left_dollars 0.0" in text.read_text()
    looks: list[float] = []

    def asleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("mt5crs.review.watching.time.sleep", asleep)
    told = CliRunner().invoke(main, ["review", "watch", "--every", "7"], env=environment)
    assert (told.exit_code, looks, told.stdout.count("reviews:")) == (1, [7, 7, 7], 3)
    (directory / FILE).write_bytes(b"no database" * 100)
    told = CliRunner().invoke(main, ["review", "watch"], env=environment)
    assert (told.exit_code, "move it away" in told.stderr) == (1, True)
