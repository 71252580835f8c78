"""Looking at a service until the gate's judgement is final."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt5crs_release.desired.spec import HealthSpec
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.lifecycle import gate
from mt5crs_release.systems import system
from mt5crs_release.systems.unit_sample import UnitSample

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


class Watch:
    """Looking at one service until :func:`gate.judge` decides."""

    def __init__(
        self,
        session: Session,
        content: Content,
        policy: HealthSpec,
        restarts_before: Mapping[str, int] | None = None,
        *,
        patient: bool = False,
    ) -> None:
        """Begin to look.

        :param restarts_before: restarts that do not count, by unit
        :param patient: nor do those before it is healthy once: what it depends on may come later
        """
        session.enter("waiting for health")
        self.session = session
        self.content = content
        self._policy = policy
        self._restarts_before = dict(restarts_before or {})
        self._patient = patient
        self._began = time.monotonic()
        self._samples: list[gate.Sample] = []
        self._command = [word.replace("{current}", session.current_directory()) for word in policy.command]

    def look(self) -> Report | None:
        """Look once; ``None``: the judgement is not final yet.

        :raises FailedError: systemd does not answer
        """
        seen = self.session.systemd.look(self.content.start)
        if self._patient and not any(sample.check == gate.HEALTHY for sample in self._samples):
            self._restarts_before = {name: unit.restarts for name, unit in seen.items()}
        units = _discount(seen, self._restarts_before)
        check, detail = None, ""
        if all(unit.active == "active" for unit in units.values()):
            check, detail = _ask(self._command, self._policy.timeout_s, self.session.paths.base)
        # Units first, then the command, and the time last: a sample is never older than it says.
        self._samples.append(gate.Sample(time.monotonic() - self._began, units, check, detail))
        self.session.lock.beat(self.session.phase)
        verdict = gate.judge(self._policy, self._samples)
        if verdict.outcome == gate.WAIT:
            return None
        checks = sum(sample.check is not None for sample in self._samples)
        restarts = sum(unit.restarts for unit in units.values())
        return Report(verdict.outcome, verdict.reason, checks, restarts, time.monotonic() - self._began)

    @property
    def pause_s(self) -> float:
        """How long to wait before the next look."""
        if self._samples and self._samples[-1].check == gate.HEALTHY:
            return max(_LOOK_EVERY_S, min(self._policy.min_healthy_s / 2, 1.0))
        return _LOOK_EVERY_S


def watch(
    session: Session,
    content: Content,
    policy: HealthSpec,
    restarts_before: Mapping[str, int] | None = None,
    *,
    patient: bool = False,
) -> Report:
    """Look at a service until the judgement is final; the parameters are those of :class:`Watch`.

    :raises FailedError: systemd does not answer
    """
    looking = Watch(session, content, policy, restarts_before, patient=patient)
    while True:
        report = looking.look()
        if report is not None:
            return report
        time.sleep(looking.pause_s)


def patiently(session: Session, content: Content) -> Watch:
    """Begin to watch; units that have given up meanwhile, for want of what they depend on, start again.

    :raises FailedError: systemd does not answer
    """
    units = session.systemd.look(content.start)
    ended = [name for name, unit in units.items() if unit.active in ("failed", "inactive")]
    if ended:
        session.systemd.forget_failures(ended)
        session.systemd.restart_later(ended)
    return Watch(session, content, content.health, patient=True)


def watch_all(watches: Sequence[Watch], *, give_up: bool) -> dict[str, Report]:
    """Look at several services at once; return each one's report by service.

    :param give_up: end as soon as one is not healthy; those that are not judged by then have no report
    :raises FailedError: systemd does not answer
    """
    reports: dict[str, Report] = {}
    waiting = list(watches)
    while waiting:
        for looking in tuple(waiting):
            report = looking.look()
            if report is None:
                continue
            reports[looking.session.service] = report
            waiting.remove(looking)
            if give_up and not report.healthy:
                return reports
        time.sleep(min((looking.pause_s for looking in waiting), default=0.0))
    return reports


def _discount(units: dict[str, UnitSample], before: Mapping[str, int]) -> dict[str, UnitSample]:
    return {
        name: UnitSample(
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
