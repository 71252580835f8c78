"""Which hosts the play is run for in a pyinfra run, how, and what becomes of its answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import windows
from deploy.inventory import Fleet
from deploy.rollout import Rollout

FLEET = Fleet(
    Path("inventory/x.yml"),
    "x",
    {},
    {
        "all": ("hub-01", "w1", "w2", "l1", "file"),
        "hub": ("hub-01",),
        "gateway": ("w1", "w2", "l1"),
        "windows": ("w1", "w2", "file"),
    },
)


@pytest.mark.parametrize(
    ("limit", "exclude", "expected"),
    [
        ([], [], ("w1", "w2")),
        (["w1"], [], ("w1",)),
        (["w*"], [], ("w1", "w2")),
        (["gateway"], [], ("w1", "w2")),
        (["all"], ["w2"], ("w1",)),
        (["hub"], [], ()),
        (["hub-01"], [], ()),
        ([], ["windows"], ()),
    ],
)
def test_targets(limit: list[str], exclude: list[str], expected: tuple[str, ...]) -> None:
    assert windows.targets(FLEET, limit, exclude) == expected


def test_command() -> None:
    words = windows.command("site.yml", Path("i.yml"), ["w1", "w2"], "baseline,gateway", check=True)
    assert Path(words[0]).name == "ansible-playbook"
    assert words[1:] == [
        "-i",
        "i.yml",
        "site.yml",
        "--tags",
        "baseline,gateway",
        "--limit",
        "w1,w2",
        "--check",
    ]


def test_command_to_a_generation() -> None:
    words = windows.command("rollback.yml", Path("i.yml"), ["w1"], "gateway", check=False, to="0001-a")
    assert words[-2:] == ["-e", "to=0001-a"]


def test_command_with_the_strategy_of_the_run() -> None:
    words = windows.command("site.yml", Path("i.yml"), ["w1"], "gateway", check=False, strategy="canary")
    assert words[-2:] == ["-e", "fleet_strategy=canary"]


def test_the_record_of_the_play_becomes_part_of_the_run() -> None:
    rollout = Rollout("pyinfra", "x")
    play = Rollout("ansible", "x")
    result = play.result("w1", "gateway")
    result.generation, result.previous, result.state, result.changed = "0002-b", "0001-a", "confirmed", True
    windows.outcome(play.record(), rollout)
    assert not rollout.failed
    assert vars(rollout.result("w1", "gateway")) == vars(result)


def test_a_failure_of_the_play_fails_the_run() -> None:
    from deploy.rollout import Failure

    rollout, play = Rollout("pyinfra", "x"), Rollout("ansible", "x")
    play.fail(Failure("w1", "activate gateway", "unhealthy", "look", ("line",)))
    windows.outcome(play.record(), rollout)
    assert rollout.failures == play.failures
