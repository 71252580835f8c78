"""What a host's answer to a step of a rollback of the fleet means for the run."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.rollout import undo_steps
from deploy.rollout.record import Rollout
from deploy.rollout.undo_steps import ASK, BACK, HOLD, JUDGE

BEFORE, TARGET = "0002-b", "0001-a"
FAILED = {"error": {"message": "reconciler 0001-a: unhealthy", "remedy": "look"}}


@pytest.fixture
def rollout() -> Rollout:
    """A run that has asked inf-01 about the way back of its reconciler."""
    made = Rollout("pyinfra", "x", action="rollback")
    made.seen("inf-01", {"services": {"reconciler": {"current": BEFORE, "version": "2"}}})
    made.seen("inf-01", {"services": {"monitoring": {"current": "0009-m"}}})
    note(made, ASK, reconciler={"attempted": TARGET})
    return made


def note(
    rollout: Rollout, step: str, error: dict[str, Any] | None = None, **services: dict[str, Any]
) -> None:
    answer = {"services": services, **(error or {})}
    undo_steps.note(rollout, "inf-01", step, answer, "", good=not error, since=rollout.began)


def seen(rollout: Rollout) -> tuple[str, str, bool]:
    result = rollout.result("inf-01", "reconciler")
    return result.state, result.generation, rollout.failed


def held(rollout: Rollout) -> None:
    entry = {"generation": TARGET, "state": "provisional", "changed": True, "version": "1"}
    note(rollout, HOLD, reconciler=entry)


def test_calls_and_what_they_are_recognised_by() -> None:
    for step in (ASK, HOLD, JUDGE, BACK):
        words = undo_steps.arguments(step, "ddd", 30)
        assert undo_steps.step_of(words) == undo_steps.step_of(" ".join(words)) == step
    assert undo_steps.arguments(HOLD, "ddd", 30) == ["undo", "--deployment", "ddd", "--hold", "30", "--json"]


def test_what_moved_waits_and_is_put_back_if_anything_fails(rollout: Rollout) -> None:
    held(rollout)
    assert undo_steps.held(rollout) == {("inf-01", "reconciler"): TARGET}
    assert [one.service for one in rollout.touched("inf-01")] == ["reconciler"]
    note(rollout, JUDGE, reconciler={"generation": TARGET, "health": {"outcome": "healthy"}})
    assert seen(rollout) == ("provisional", TARGET, False)
    note(rollout, BACK, reconciler={"generation": BEFORE, "changed": True})
    assert seen(rollout) == ("reverted", BEFORE, False)
    assert rollout.put_back == ["reconciler on inf-01"]
    assert [span.step for span in rollout.spans] == ["roll back", "judge", "put back"]


def test_a_host_that_is_not_healthy_stays_held_until_all_are_put_back(rollout: Rollout) -> None:
    held(rollout)
    note(rollout, JUDGE, FAILED)
    assert seen(rollout) == ("provisional", TARGET, True)
    note(rollout, BACK, reconciler={"generation": BEFORE, "changed": True})
    assert seen(rollout) == ("reverted", BEFORE, True)
    assert rollout.result("inf-01", "reconciler").version == "2"


def test_a_host_that_could_not_move_runs_what_it_ran(rollout: Rollout) -> None:
    undo_steps.begin(rollout, "inf-01", ["reconciler"])
    note(rollout, HOLD, FAILED)
    assert seen(rollout) == ("reverted", BEFORE, True)


@pytest.mark.parametrize("step", [HOLD, JUDGE, BACK])
def test_a_host_that_did_not_answer_may_be_anywhere(rollout: Rollout, step: str) -> None:
    held(rollout)
    note(rollout, step, {"lost": True, "error": {"message": "the connection was lost"}})
    assert rollout.result("inf-01", "reconciler").state == "provisional"
    assert rollout.failed
    assert rollout.result("inf-01", "monitoring").state == "unchanged", "it had no part in this"


def test_back_but_not_healthy_is_told(rollout: Rollout) -> None:
    held(rollout)
    note(rollout, BACK, FAILED, reconciler={"generation": BEFORE, "restored_healthy": False, **FAILED})
    assert seen(rollout) == ("reverted", BEFORE, True)
    assert rollout.failures[0].message == "reconciler 0001-a: unhealthy"
