"""The health gate's judgement: a pure function from samples to a verdict.

A sample holds what systemd says of the units and what the service's own health command answered.
The gate opens when everything has been healthy without a break for ``min_healthy_s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mt5crs_release.desired.spec import HealthSpec
from mt5crs_release.systems.unit_sample import UnitSample

HEALTHY = "healthy"
UNHEALTHY = "unhealthy"
INCONCLUSIVE = "inconclusive"
BROKEN = "check broken"
WAIT = "wait"

EXIT_HEALTHY = 0
EXIT_UNHEALTHY = 1
EXIT_INCONCLUSIVE = 75

BROKEN_BUDGET = 3
"""How many health commands in a row may break (crash, time out, not start) before the gate gives up."""


@dataclass(frozen=True)
class Sample:
    """One look at the service, ``at`` seconds (monotonic) after the gate began."""

    at: float
    units: dict[str, UnitSample]
    check: str | None
    """Answer of the health command; ``None``: not asked because a unit was not active."""
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """``outcome`` is WAIT or final; ``reason`` names the check and the cause."""

    outcome: str
    reason: str


def answer(exit_status: int | None) -> str:
    """Return what a health command's exit status means (``None``: it timed out or did not start)."""
    known = {EXIT_HEALTHY: HEALTHY, EXIT_UNHEALTHY: UNHEALTHY, EXIT_INCONCLUSIVE: INCONCLUSIVE}
    return BROKEN if exit_status is None else known.get(exit_status, BROKEN)


def judge(policy: HealthSpec, samples: Sequence[Sample]) -> Verdict:
    """Return the verdict on ``samples`` (oldest first).

    - a unit failed, or restarted more than ``max_restarts`` times: unhealthy at once
    - the health command broke BROKEN_BUDGET times in a row: check broken
    - healthy for ``min_healthy_s`` without a break: healthy
    - still unhealthy (or a unit still not active) at ``healthy_deadline_s``: unhealthy
    - still starting at ``progress_deadline_s``: inconclusive
    """
    if not samples:
        return Verdict(WAIT, "not looked at yet")
    last = samples[-1]
    for name, unit in last.units.items():
        if unit.restarts > policy.max_restarts:
            return Verdict(
                UNHEALTHY, f"{name} restarted {unit.restarts} times, allowed are {policy.max_restarts}"
            )
        if unit.active == "failed":
            return Verdict(UNHEALTHY, f"{name} failed ({unit.result}, exit status {unit.exit_status})")
    broken = _trailing(samples, BROKEN)
    if len(broken) >= BROKEN_BUDGET:
        return Verdict(BROKEN, f"the health command itself broke {len(broken)} times in a row: {last.detail}")
    good = _trailing(samples, HEALTHY)
    if good and last.at - good[0].at >= policy.min_healthy_s:
        return Verdict(HEALTHY, f"healthy for {last.at - good[0].at:.1f} s")
    why = _why(last)
    if last.at >= policy.progress_deadline_s:
        return Verdict(INCONCLUSIVE, f"{why} after {policy.progress_deadline_s:g} s (progress_deadline_s)")
    starting = last.check in (INCONCLUSIVE, HEALTHY) or (last.check is None and _starting(last))
    if last.at >= policy.healthy_deadline_s and not starting:
        return Verdict(UNHEALTHY, f"{why} after {policy.healthy_deadline_s:g} s (healthy_deadline_s)")
    return Verdict(WAIT, why)


def _trailing(samples: Sequence[Sample], check: str) -> Sequence[Sample]:
    start = len(samples)
    while start > 0 and samples[start - 1].check == check:
        start -= 1
    return samples[start:]


def _starting(sample: Sample) -> bool:
    return all(unit.active in ("active", "activating", "reloading") for unit in sample.units.values())


def _why(sample: Sample) -> str:
    waiting = [f"{name} is {unit.active}" for name, unit in sample.units.items() if unit.active != "active"]
    if waiting:
        return ", ".join(waiting)
    return f"the health command answers {sample.check}" + (f" ({sample.detail})" if sample.detail else "")
