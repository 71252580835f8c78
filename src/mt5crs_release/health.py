"""Looking at a service until the gate's judgement is final."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt5crs_release import gate, system
from mt5crs_release.generation import Content
from mt5crs_release.session import Session
from mt5crs_release.spec import HealthSpec

_LOOK_EVERY_S = 0.1
_DETAIL_CHARACTERS = 300


@dataclass(frozen=True)
class Report:
    """How a gate ended."""

    outcome: str
    reason: str
    checks: int
    restarts: int
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether the gate opened."""
        return self.outcome == gate.HEALTHY

    def as_json(self) -> dict[str, Any]:
        """Return the report as the ``--json`` output shows it."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "checks": self.checks,
            "restarts": self.restarts,
            "seconds": round(self.seconds, 3),
        }


def watch(
    session: Session, content: Content, policy: HealthSpec, restarts_before: Mapping[str, int] | None = None
) -> Report:
    """Look at the units and ask the health command until :func:`gate.judge` decides.

    :param restarts_before: restarts that do not count, by unit
    :raises FailedError: systemd does not answer
    """
    session.enter("waiting for health")
    began = time.monotonic()
    samples: list[gate.Sample] = []
    command = [word.replace("{current}", session.current_directory()) for word in policy.command]
    while True:
        units = _discount(session.systemd.look(content.start), restarts_before or {})
        check, detail = None, ""
        if all(unit.active == "active" for unit in units.values()):
            check, detail = _ask(command, policy.timeout_s, session.paths.base)
        # Units first, then the command, and the time last: a sample is never older than it says.
        samples.append(gate.Sample(time.monotonic() - began, units, check, detail))
        verdict = gate.judge(policy, samples)
        if verdict.outcome != gate.WAIT:
            checks = sum(sample.check is not None for sample in samples)
            restarts = sum(unit.restarts for unit in units.values())
            return Report(verdict.outcome, verdict.reason, checks, restarts, time.monotonic() - began)
        session.lock.beat(session.phase)
        pause = _LOOK_EVERY_S
        if check == gate.HEALTHY:
            pause = max(pause, min(policy.min_healthy_s / 2, 1.0))
        time.sleep(pause)


def _discount(units: dict[str, gate.UnitSample], before: Mapping[str, int]) -> dict[str, gate.UnitSample]:
    return {
        name: gate.UnitSample(
            unit.active, unit.result, max(0, unit.restarts - before.get(name, 0)), unit.exit_status
        )
        for name, unit in units.items()
    }


def _ask(command: list[str], timeout_s: float, directory: Path) -> tuple[str, str]:
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            cwd=directory,
            env=system.here().environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return gate.BROKEN, f"no answer within {timeout_s:g} s (timeout_s)"
    except OSError as error:
        return gate.BROKEN, f"{command[0]} cannot be run: {error.strerror}"
    lines = answer.stdout.strip().splitlines()
    detail = lines[-1][:_DETAIL_CHARACTERS] if lines else f"exit status {answer.returncode}"
    meaning = gate.answer(answer.returncode)
    if meaning == gate.BROKEN:
        detail = f"exit status {answer.returncode}: {detail}"
    return meaning, detail
