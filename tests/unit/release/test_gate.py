"""The health gate's judgement, sample by sample."""

from __future__ import annotations

import pytest

from mt5crs_release.desired.spec import HealthSpec
from mt5crs_release.lifecycle import gate
from mt5crs_release.lifecycle.gate import Sample, answer, judge
from mt5crs_release.systems.unit_sample import UnitSample

POLICY = HealthSpec(
    ("check",), 5, min_healthy_s=2, healthy_deadline_s=10, progress_deadline_s=20, max_restarts=1
)


def sample(at: float, check: str | None, active: str = "active", restarts: int = 0) -> Sample:
    return Sample(at, {"x.service": UnitSample(active, "exit-code", restarts, 7)}, check, "detail")


def outcome(*samples: Sample) -> str:
    return judge(POLICY, samples).outcome


def test_healthy_only_after_the_whole_time_without_a_break() -> None:
    good = gate.HEALTHY
    assert outcome(sample(0, good), sample(1.9, good)) == gate.WAIT
    assert outcome(sample(0, good), sample(2, good)) == gate.HEALTHY
    assert outcome(sample(0, good), sample(1, gate.UNHEALTHY), sample(2, good)) == gate.WAIT
    assert outcome(sample(0, good), sample(1, None, "activating"), sample(2, good)) == gate.WAIT


def test_failed_unit_ends_it_at_once_and_is_named() -> None:
    verdict = judge(POLICY, [sample(0.1, None, "failed")])
    assert verdict.outcome == gate.UNHEALTHY
    assert "x.service failed (exit-code, exit status 7)" in verdict.reason


def test_restarts_are_counted() -> None:
    assert outcome(sample(1, gate.HEALTHY, restarts=1)) == gate.WAIT
    assert outcome(sample(1, gate.HEALTHY, restarts=2)) == gate.UNHEALTHY


def test_unhealthy_may_last_until_its_deadline() -> None:
    assert outcome(sample(9.9, gate.UNHEALTHY)) == gate.WAIT
    assert outcome(sample(10, gate.UNHEALTHY)) == gate.UNHEALTHY


def test_starting_may_last_until_the_progress_deadline() -> None:
    assert outcome(sample(19.9, gate.INCONCLUSIVE)) == gate.WAIT
    assert outcome(sample(20, gate.INCONCLUSIVE)) == gate.INCONCLUSIVE
    assert outcome(sample(10, None, "activating")) == gate.WAIT
    assert outcome(sample(10, None, "inactive")) == gate.UNHEALTHY


def test_late_health_gets_its_time_but_not_for_ever() -> None:
    assert outcome(sample(9.5, gate.HEALTHY), sample(10.5, gate.HEALTHY)) == gate.WAIT
    assert outcome(sample(9.5, gate.HEALTHY), sample(11.5, gate.HEALTHY)) == gate.HEALTHY
    assert outcome(sample(19.5, gate.HEALTHY), sample(20.1, gate.HEALTHY)) == gate.INCONCLUSIVE


def test_broken_check_has_its_own_budget() -> None:
    broken = [sample(at, gate.BROKEN) for at in (0, 1, 2)]
    assert outcome(*broken[:2]) == gate.WAIT
    assert outcome(broken[0], sample(0.5, gate.UNHEALTHY), *broken[1:]) == gate.WAIT
    verdict = judge(POLICY, broken)
    assert verdict.outcome == gate.BROKEN
    assert "health command itself" in verdict.reason


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (0, gate.HEALTHY),
        (1, gate.UNHEALTHY),
        (75, gate.INCONCLUSIVE),
        (2, gate.BROKEN),
        (-9, gate.BROKEN),
        (None, gate.BROKEN),
    ],
)
def test_exit_status_of_the_health_command(status: int | None, meaning: str) -> None:
    assert answer(status) == meaning
