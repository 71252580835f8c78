"""A run that is told to stop finishes what it had decided, and puts back everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.coordination import interrupted, unfinished
from deploy.fleet.inventory import Fleet
from deploy.rollout.answer import ToolAnswer
from deploy.rollout.record import Failure, Rollout

DECISION = {"phase": unfinished.CONFIRM, "provisional": ["gtw-01:gateway:2"]}
FLEET = Fleet(Path("x.yml"), "x", {"gtw-01": {}}, {})


@pytest.mark.parametrize(
    ("action", "undoes", "failed", "decision", "finish", "record"),
    [
        ("deploy", "", False, DECISION, True, DECISION),
        ("deploy", "", True, DECISION, False, {**DECISION, "phase": unfinished.PUT_BACK}),
        ("deploy", "", False, {}, False, {"phase": unfinished.PUT_BACK}),
        ("rollback", "", False, {}, False, {}),
        ("rollback", "", True, DECISION, False, {}),
        ("rollback", "a deployment", False, {}, False, {"phase": unfinished.PUT_BACK}),
    ],
)
def test_what_is_left(
    action: str, undoes: str, failed: bool, decision: dict[str, Any], finish: bool, record: dict[str, Any]
) -> None:
    rollout = Rollout("x", "x", action=action)
    rollout.undoes = undoes
    if failed:
        rollout.fail(Failure("gtw-01", "activate", "it did not answer"))
    assert interrupted.left(rollout, decision) == (finish, record)


@pytest.mark.parametrize(
    ("finish", "failures", "ends_interrupted"), [(True, [], False), (True, ["x"], True), (False, [], True)]
)
def test_what_hosts_answer_is_in_the_record(
    monkeypatch: pytest.MonkeyPatch, finish: bool, failures: list[str], ends_interrupted: bool
) -> None:
    asked: list[Any] = []
    document = {"changed": True, "generation": "2", "state": "confirmed"}
    answer = ToolAnswer("gtw-01", "confirm", "gateway", True, document, "", 1.0)
    done = unfinished.Settled("", "", ["gateway confirmed"], [answer], failures)
    monkeypatch.setattr(unfinished, "settle", lambda *words: asked.append(words) or done)
    rollout, told = Rollout("x", "x"), []
    interrupted.settle(rollout, FLEET, DECISION, told.append, finish=finish)
    assert asked == [(FLEET, {**DECISION, "hosts": ["gtw-01"]})]
    assert told == ["  gateway confirmed"]
    assert rollout.result("gtw-01", "gateway").state == "confirmed"
    assert [failure.message for failure in rollout.failures] == failures
    assert rollout.interrupted is ends_interrupted
