"""The optimiser is switched on when it was seen at work; with a broken one reviews go on without it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from mt5crs.__main__ import main
from mt5crs.review import cache, external_gate, programs, switch, units
from mt5crs.review.rehearsal import KEY, ProviderServer
from tests.unit.review.conftest import Commit
from tests.unit.review.test_external_gate import ask, twenty


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def environment(provider: ProviderServer, tmp_path: Path) -> dict[str, str | None]:
    return {
        "XDG_CACHE_HOME": str(tmp_path),
        "REVIEW_REVIEWER": msgspec.json.encode(provider.settings().reviewer).decode(),
        "REVIEW_API_KEY": KEY,
    }


def activate(environment: dict[str, str | None], *options: str) -> Result:
    return CliRunner().invoke(main, ["review", "activate", *options], env=environment)


def state(directory: Path) -> str:
    return switch.why_off(directory / "mt5crs/review", version("mt5crs"))


def test_it_is_switched_on_when_it_works_and_off_at_once(
    environment: dict[str, str | None], provider: ProviderServer, tmp_path: Path
) -> None:
    assert "never switched on" in state(tmp_path)
    done = activate(environment, "--json")
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert {each["name"]: each["verdict"] for each in made["findings"]} == {
        "modules": "PASS",
        "reviewer and key": "PASS",
        "fall-back": "SKIP",
        "budget": "PASS",
        "cache": "PASS",
        "dry run": "PASS",
    }
    assert state(tmp_path) == ""
    assert provider.calls == 0  # the reviewer itself is not asked
    assert activate(environment, "--off").exit_code == 0
    assert "was switched off" in state(tmp_path)


def no_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "route", lambda _: ("strong", "x"))


def no_batcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_gate, "batches", lambda asked, *_: [[unit] for unit in asked])


def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_gate.ExternalGate, "_cached", lambda *_: None)


def lossy_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.Cache, "_put", lambda *_: None)
    monkeypatch.setattr(cache.Cache, "_get", lambda *_: None)


def broken_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "ROUTES", ())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_router, r"did not go through router \(route\)"),
        (no_batcher, r"did not go through batcher \(batches\)"),
        (no_cache, r"did not go through cache \(Cache.get\)"),
        (lossy_cache, "an unchanged tree took . calls"),
        (broken_router, "the optimiser failed|did not go through"),
    ],
)
def test_a_gate_that_does_not_go_through_it_is_found_by_running_it(
    damage: Any,
    said: str,
    environment: dict[str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(monkeypatch)
    done = activate(environment)
    assert done.exit_code == 1
    assert re.search(said, done.output), done.output
    assert "never switched on" in state(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"REVIEW_REVIEWER": ""}, "REVIEW_REVIEWER is not set"),
        ({"REVIEW_API_KEY": ""}, "REVIEW_API_KEY is not set"),
        ({"REVIEW_BUDGET_DAY": "0"}, "REVIEW_BUDGET_DAY is $0"),
        ({"REVIEW_BUDGET_REVIEW": "0.1"}, "REVIEW_BUDGET_REVIEW is $0.1"),
        ({"REVIEW_CACHE_TTL_H": "0"}, "nothing is kept"),
        ({"REVIEW_OPTIMISER": "false"}, "REVIEW_OPTIMISER is false"),
    ],
)
def test_keys_and_money_are_looked_for(
    given: dict[str, str], said: str, environment: dict[str, str | None], tmp_path: Path
) -> None:
    done = activate({**environment, **given})
    assert done.exit_code == 1
    assert said in done.output
    assert KEY not in done.output
    assert state(tmp_path)


def test_a_check_that_fails_changes_nothing(
    environment: dict[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert activate(environment).exit_code == 0
    monkeypatch.setattr(programs, "where", lambda name: None if name == "mypy" else name)
    done = activate(environment)
    assert (done.exit_code, "mypy not beside" in done.output) == (1, True)
    assert "as before: on" in done.output
    assert state(tmp_path) == ""


@pytest.mark.parametrize(
    "content",
    ['{"on": true}', "", '{"on": true, "at": "x", "tool": "0.0.0"}', '{"on": false, "at": "x", "tool": "1"}'],
)
def test_a_switch_that_is_damaged_or_of_another_version_is_off(content: str, tmp_path: Path) -> None:
    (tmp_path / switch.FILE).write_text(content)
    assert "mt5crs review activate" in switch.why_off(tmp_path, "1")


def test_a_review_obeys_the_switch_and_says_so(
    provider: ProviderServer,
    environment: dict[str, str | None],
    repository: Path,
    commit: Commit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", ())
    commit({f"docs/{number}.md": f"text {number}\n" for number in range(4)})
    options = ["review", "run", "--tree", str(repository), "--out", str(tmp_path / "out"), "--no-external"]
    off = CliRunner().invoke(main, options, env=environment)
    assert "never switched on" in off.output
    assert (provider.calls, set(provider.models)) == (4, {"large"})
    switch.turn(tmp_path / "mt5crs/review", on=True, tool=version("mt5crs"))
    for _ in range(2):
        on = CliRunner().invoke(main, options, env=environment)
        assert on.exit_code == 0
        assert "the optimiser" not in on.output
    assert (provider.calls, provider.models[-1]) == (5, "small")


def fails(*_: object, **__: object) -> Any:
    raise RuntimeError("it is broken")


@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("mt5crs.review.units.route", 4),
        ("mt5crs.review.external_gate.batches", 4),
        ("mt5crs.review.external_gate.caching.key", 4),
        ("mt5crs.review.cache.Cache.get", 4),
        ("mt5crs.review.cache.Cache.put", 1),
        ("mt5crs.review.cache.Cache.moved", 1),
    ],
)
def test_with_a_broken_optimiser_reviews_go_on_without_it(
    where: str, calls: int, provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, fails)
    told = ask(provider.settings(), twenty()[:4], tmp_path)
    assert (told.result.state, provider.calls) == ("passed", calls)
    assert (
        told.without == "the optimiser failed (RuntimeError: it is broken), so the review goes on without it"
    )
