"""What runs cost: counted as the provider counts, kept, summed up, exported."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from mt5crs.__main__ import main
from mt5crs.review import figures, programs, switch
from mt5crs.review.budget import Budget
from mt5crs.review.external_gate import Figures
from mt5crs.review.history import History, Run, totals
from mt5crs.review.model import ReviewError
from mt5crs.review.rehearsal import KEY, ProviderServer
from mt5crs.review.stats import since_when
from mt5crs.settings.review import ReviewSettings
from tests.promql import samples
from tests.unit.review.conftest import Commit
from tests.unit.review.test_external_gate import ask, twenty


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


def run(at: float = 1.0, down: bool | None = None, places: int = 5, **numbers: float) -> Run:
    return Run(
        at=at,
        tree="t",
        result="PASSED",
        external="passed",
        mode="live",
        seconds=1.0,
        places=places,
        figures=msgspec.convert(numbers, Figures),
        reviewer_down=down,
    )


def test_what_is_saved_is_measured_against_what_asking_for_everything_costs(
    provider: ProviderServer, tmp_path: Path
) -> None:
    """The estimate took a third more tokens for what was not asked than the provider counts."""
    files = twenty()
    told = ask(provider.settings(), files, tmp_path / "with").figures
    alone = ask(provider.settings(optimiser=False), files, tmp_path / "without").figures
    assert 0.9 * alone.price < told.price_without <= alone.price  # never more than it would have been
    assert told.cost_reduction_rate <= 1 - told.price / alone.price
    assert alone.cost_reduction_rate == pytest.approx(0, abs=0.02)


def test_every_call_is_counted_once_and_one_whose_end_is_not_known_at_its_most(
    provider: ProviderServer, tmp_path: Path
) -> None:
    """A reply that could not be read was counted as an answer and as a failure."""
    provider.brain = lambda _: "no JSON"
    told = ask(provider.settings(attempts=2), twenty()[:1], tmp_path).figures
    assert (told.api_calls, told.failed_calls, provider.calls) == (2, 2, 2)
    assert (told.batch_efficiency, told.price_unknown) == (0.0, 0.0)
    provider.faults.append("cut")
    told = ask(provider.settings(attempts=1), twenty()[:1], tmp_path / "cut").figures
    assert (told.price, told.api_calls) == (0.0, 1)
    assert told.price_unknown == pytest.approx(Budget(tmp_path / "cut/b.sqlite", 5, 5).today())


def test_a_file_that_nobody_looked_at_is_no_saving(provider: ProviderServer, tmp_path: Path) -> None:
    """A reviewer that was down, or a budget of nothing, saved 100 percent."""
    provider.always = "503"
    told = ask(provider.settings(attempts=1), twenty(), tmp_path).figures
    assert (told.price_without, told.cost_reduction_rate) == (0.0, 0.0)
    told = ask(provider.settings(budget_day=0), twenty(), tmp_path).figures
    assert (told.price_without, told.cost_reduction_rate) == (0.0, 0.0)
    provider.always = ""
    whole = ask(provider.settings(), twenty()[:5], tmp_path).figures
    provider.always = "503"
    part = ask(provider.settings(attempts=1), twenty(), tmp_path).figures
    assert (part.cost_reduction_rate, part.cached_files) == (1.0, 5)
    assert part.price_without < whole.price_without * 1.1


def test_whether_the_reviewer_is_down_is_known_only_when_it_was_asked(
    provider: ProviderServer, tmp_path: Path
) -> None:
    settings = provider.settings(attempts=1)
    assert ask(settings, twenty()[:1], tmp_path).reviewer_down is False
    assert ask(settings, twenty()[:1], tmp_path).reviewer_down is None  # all from the cache
    assert ask(settings, twenty(), tmp_path / "other", trusted=False).reviewer_down is None
    provider.always = "500"
    assert ask(settings, twenty(), tmp_path).reviewer_down is True


def test_rates_of_many_runs_are_rates_of_sums() -> None:
    sums = totals(
        [
            run(down=True, files=100, cached_files=100, price_without=9.0, places=0),
            run(down=False, files=2, asked_files=2, price=1.0, price_without=1.0, price_unknown=0.5),
            run(places=0),
        ]
    )
    assert sums.cache_hit_rate == round(100 / 102, 4)
    assert (sums.batch_efficiency, sums.cost_reduction_rate) == (0.4, 0.85)
    assert sums.reviewer_down is False
    assert totals([]).cache_hit_rate is None


def test_the_record_of_runs_is_shared_and_one_that_is_damaged_is_said(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    threads = [threading.Thread(target=History(path).add, args=(run(float(at)),)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(History(path).runs()) == 8
    assert len(History(path).runs(since=6.0)) == 2
    path.write_bytes(b"no database" * 100)
    with pytest.raises(ReviewError, match="move it away"):
        History(path).runs()


def test_what_is_not_known_is_no_metric(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "b.sqlite", 5, 5)

    def exported(*runs: Run) -> dict[str, float]:
        text = figures.exposition(list(runs), totals(runs), ReviewSettings(), budget)
        return {each.name.removeprefix("mt5crs_review_"): each.value for each in samples(text)}

    assert "reviewer_down" not in exported()
    assert exported()["budget_left_dollars"] == 5
    made = exported(run(down=True, files=4, cached_files=1, price_without=1.0))
    assert (made["reviewer_down"], made["files_total"], made["cached_files_total"]) == (1, 4, 1)
    (tmp_path / "b.sqlite").write_bytes(b"no database" * 100)
    assert "budget_left_dollars" not in exported()


def test_a_run_leaves_a_line_a_row_and_a_file(
    provider: ProviderServer,
    repository: Path,
    commit: Commit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", ())
    switch.turn(tmp_path / "cache/mt5crs/review", on=True, tool=version("mt5crs"))
    text = tmp_path / "metrics" / "review.prom"
    environment = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "REVIEW_REVIEWER": msgspec.json.encode(provider.settings().reviewer).decode(),
        "REVIEW_API_KEY": KEY,
        "REVIEW_METRICS_FILE": str(text),
    }
    commit({f"src/{number}.py": "x = 1\n" for number in range(5)})
    options = ["review", "run", "--tree", str(repository), "--out", str(tmp_path / "out"), "--no-external"]
    done = CliRunner().invoke(main, options, env=environment)
    assert done.exit_code == 0, done.output
    line = json.loads(done.stderr.splitlines()[-1])
    assert (line["event"], line["api_calls"], line["batch_efficiency"]) == ("review.done", 1, 1.0)
    assert line["budget_left"] == pytest.approx(ReviewSettings().budget_day - line["price"])
    assert KEY not in done.output + done.stderr + text.read_text()
    CliRunner().invoke(main, options, env=environment)
    found = {each.name: each.value for each in samples(text.read_text())}
    assert (found["mt5crs_review_runs_total"], found["mt5crs_review_cached_files_total"]) == (2, 5)
    assert found["mt5crs_review_cache_hit_rate"] == 1
    shown = CliRunner().invoke(main, ["review", "stats", "--json", "--since", "1h"], env=environment)
    sums = json.loads(shown.stdout)
    assert (sums["runs"], sums["api_calls"], sums["cache_hit_rate"]) == (2, 1, 0.5)
    told = CliRunner().invoke(main, ["review", "stats"], env=environment)
    assert "2 reviews, 2 passed" in told.stdout
    # A record that cannot be kept costs no review.
    (tmp_path / "cache/mt5crs/review/history.sqlite").write_bytes(b"no database" * 100)
    done = CliRunner().invoke(main, options, env=environment)
    assert done.exit_code == 0
    assert json.loads(done.stderr.splitlines()[-1])["event"] == "review.figures_not_kept"
    broken = CliRunner().invoke(main, ["review", "stats"], env=environment)
    assert (broken.exit_code, "move it away" in broken.stderr) == (1, True)


def test_since_when() -> None:
    assert since_when("2h", 10_000.0) == 2800.0
    assert since_when("1970-01-02", 0.0) == since_when("1970-01-02T00:00:00Z", 0.0) == 86_400
    with pytest.raises(ReviewError, match="is no time"):
        since_when("yesterday", 0.0)
