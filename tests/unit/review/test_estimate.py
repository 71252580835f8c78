"""What asking will cost is said first, and nothing is spent where it could not be finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.state import PROJECT
from mt5crs.review import bench, estimate
from mt5crs.review.budget import Budget
from mt5crs.review.cache import Cache
from mt5crs.review.external_gate import ExternalGate, Told
from mt5crs.review.rehearsal import ProviderServer, reviewer
from mt5crs.review.tree import changed, tree_of
from mt5crs.review.units import batches, units
from mt5crs.settings.review import ReviewSettings


def asked(settings: ReviewSettings, directory: Path, said: list[str], **others: object) -> Told:
    budget = Budget(directory / "b.sqlite", settings.budget_day, settings.budget_review)
    cache = Cache(directory / "c.sqlite", 10_000_000)
    return ExternalGate(settings, cache, budget, "1", say=said.append, **others).ask(bench.twenty())  # type: ignore[arg-type]


def test_the_estimate_is_near_the_price_and_the_worst_case_above_it(tmp_path: Path) -> None:
    said: list[str] = []
    with ProviderServer() as server:
        told = asked(server.settings(), tmp_path, said)
        (line,) = said
        assert line.startswith("asking about 20 files in 5 calls: about $0.14, ")
        most = float(line.split(", $")[1].split()[0])
        about = float(line.split("about $")[1].split(",")[0])
        assert 0.5 * about < told.figures.price < about < most
        asked(server.settings(), tmp_path, said)
    assert len(said) == 1, "nothing is estimated where all is known"


def test_nothing_is_spent_on_a_review_that_could_not_be_finished(tmp_path: Path) -> None:
    said: list[str] = []
    with ProviderServer() as server:
        told = asked(server.settings(budget_review=0.1, budget_day=0.12), tmp_path, said)
        assert (told.result.state, server.calls) == ("not_asked", 0)
        reason = told.result.reasons[0]
        assert "$0.1 are allowed for a review and $0.12 left today, so nothing was asked" in reason
        assert "REVIEW_BUDGET_REVIEW=" in reason
        assert "--within-budget" in reason
        # What it advises is enough.
        advised = {
            setting: float(reason.split(f"{name}=")[1].split(",")[0])
            for setting, name in (
                ("budget_review", "REVIEW_BUDGET_REVIEW"),
                ("budget_day", "REVIEW_BUDGET_DAY"),
            )
        }
        assert asked(server.settings(**advised), tmp_path, said).result.state == "passed"


@pytest.mark.parametrize("nothing", [{"budget_review": 0}, {"budget_day": 0}])
@pytest.mark.parametrize("within_budget", [True, False])
def test_a_budget_of_nothing_asks_nothing(
    nothing: dict[str, float], within_budget: bool, tmp_path: Path
) -> None:
    with ProviderServer() as server:
        told = asked(server.settings(**nothing), tmp_path, [], within_budget=within_budget)
        assert (told.result.state, server.calls) == ("not_asked", 0)
    assert "REVIEW_BUDGET" in told.result.reasons[0]


def test_as_much_as_there_is_money_for_the_riskiest_first_and_the_next_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    with ProviderServer() as server:
        few = server.settings(budget_review=0.08, reply_tokens=256, batch_files=2)
        told = asked(few, tmp_path / "few", said, within_budget=True)
        assert told.result.state == "not_asked"
        assert server.models[0] == "large", "the riskiest first"
        assert told.figures.price <= 0.08
        for _ in range(3):
            told = asked(few, tmp_path / "few", said, within_budget=True)
        assert told.result.state == "passed"


def test_an_optimiser_that_is_off_is_the_first_advice(tmp_path: Path) -> None:
    with ProviderServer() as server:
        told = asked(server.settings(budget_review=0.2), tmp_path, [], off="it was never switched on")
        assert server.calls == 0
    assert "switch the optimiser on (`mt5crs review activate`: about $0.14" in told.result.reasons[0]


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_the_first_review_of_this_tree_fits_the_default_budgets(name: str) -> None:
    defaults = ReviewSettings()
    files = changed(tree_of(PROJECT, "HEAD"), None)
    made = batches(units(files, defaults.batch_tokens), defaults.batch_files, defaults.batch_tokens)
    wanted = estimate.of(made, reviewer("https://x.example", name), defaults.reply_tokens)  # type: ignore[arg-type]
    assert wanted.about > 1
    assert estimate.too_little(wanted, defaults.budget_review, defaults.budget_day, 15.0, None) == ""
