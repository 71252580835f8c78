"""Profiles: those that ship, and what a wrong one is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from mt5crs.phases.profile import Criterion, ProfileError, lowest, named, parse, profiles

FILES = Path(__file__).parents[3] / "profiles"
WANTED = {
    # from the requirements: size, positions, daily loss, least expected profit
    "live_shadow_atomic_v1": (0, True, 1.0, 10.0, None, None),
    "live_safe_atomic_v1": (1, False, 2.0, 20.0, 3.0, 1.5),
    "live_constrained_atomic_v1": (2, False, 5.0, 50.0, 5.0, 1.8),
    "live_scaled_atomic_v1": (3, False, 10.0, 100.0, 10.0, 2.0),
}


def document(name: str = "live_safe_atomic_v1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / f"{name}.json").read_text())
    return found


def problems(changed: dict[str, Any]) -> str:
    with pytest.raises(ProfileError) as caught:
        parse(json.dumps(changed).encode(), "live_safe_atomic_v1")
    return str(caught.value)


def test_the_profiles_say_what_was_asked_for() -> None:
    found = {
        name: (
            each.phase,
            each.dry_run,
            each.limits.trade_size,
            each.limits.position_limit,
            each.limits.daily_loss,
            each.limits.min_expected_profit_percent,
        )
        for name, each in profiles().items()
    }
    assert found == WANTED
    assert lowest().name == "live_shadow_atomic_v1"
    thresholds = {
        name: {each.fact: each.at_least for each in profile.exit} for name, profile in profiles().items()
    }
    assert thresholds["live_shadow_atomic_v1"]["days_without_crash"] == 7
    assert thresholds["live_safe_atomic_v1"]["days_without_critical"] == 7
    assert thresholds["live_constrained_atomic_v1"]["days_without_critical"] == 14


def test_everything_wrong_is_told_at_once() -> None:
    wrong = document()
    wrong["limits"] |= {"trade_size": "2", "daily_loss": -1, "leverage": 5}
    del wrong["limits"]["max_instruments"]
    del wrong["goals"]
    wrong["phase"] = "one"
    said = problems(wrong)
    for part in (
        "limits.trade_size",
        "limits.daily_loss",
        "limits.leverage is unknown",
        "limits.max_instruments is missing",
        "goals is missing",
        "phase: ",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "live_other_v1"}, "the file is live_safe_atomic_v1"),
        ({"exit": [{"fact": "fills"}]}, "fills has neither at_least nor at_most"),
        ({"rollback": [{"on": "terminal_lost", "do": "halt"}]}, "after_s belongs to terminal_lost"),
        (
            {"rollback": [{"on": "no_fills", "do": "halt", "after_s": 60}]},
            "after_orders belongs to no_fills alone",
        ),
        ({"rollback": [{"on": "weather", "do": "halt"}]}, "rollback: Invalid enum value 'weather'"),
        ({"currency": "dollars"}, "currency: "),
    ],
    ids=str,
)
def test_what_does_not_fit_together(change: dict[str, Any], said: str) -> None:
    assert said in problems(document() | change)


def test_limits_that_contradict_each_other() -> None:
    wrong = document()
    wrong["limits"] |= {"position_limit": 1.0, "daily_loss": None}
    said = problems(wrong)
    assert "position_limit 1 is below trade_size 2" in said
    assert "daily_loss is null" in said


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(ProfileError, match="there is no profile 'live_big'; there are live_shadow_atomic_v1"):
        named("live_big")


def test_what_is_not_known_does_not_hold() -> None:
    assert not Criterion(fact="fills", at_least=0).holds(None)
    assert not Criterion(fact="fills", at_most=0).holds(float("nan"))
    assert Criterion(fact="worst_day", at_least=-3).holds(-3)
