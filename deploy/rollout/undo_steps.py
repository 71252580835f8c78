"""The steps in which a fleet goes back, alike for both engines: how a host is asked, what its answer means.

Each is done on all hosts before the next begins: hold, judge, then `confirm` of every service; or back. What
a host answers is noted in the run's `Rollout`. Nothing here talks to a host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.fleet.services import NAMES
from deploy.rollout.answer import ToolAnswer, apply
from deploy.rollout.record import Rollout, ServiceResult, failure_of
from deploy.rollout.undoing import outcomes

ASK, HOLD, JUDGE, BACK = "ask", "hold", "judge", "back"
_OPTIONS = {"--dry-run": ASK, "--hold": HOLD, "--judge": JUDGE, "--back": BACK}
TOLD = {
    ASK: "ask about the way back",
    HOLD: "roll back",
    JUDGE: "judge",
    BACK: "put back",
}
"""What each step is called in failures and spans."""


def arguments(step: str, deployment: str, hold_s: float, *, give_back: bool = False) -> list[str]:
    """What the release tool of a host is called with; `hold_s`: until what is held returns by itself.

    give_back: access lists go back as well.
    """
    option = next(word for word, name in _OPTIONS.items() if name == step)
    seconds = [f"{hold_s:g}"] if step == HOLD else []
    access = ["--access"] if give_back and step in (ASK, HOLD) else []
    return ["undo", "--deployment", deployment, option, *seconds, *access, "--json"]


def step_of(command: object) -> str:
    """Which step a call was, a list of words or one line."""
    words = command if isinstance(command, list) else str(command).split()
    return next((_OPTIONS[str(word)] for word in words if str(word) in _OPTIONS), "")


def held(rollout: Rollout) -> dict[tuple[str, str], str]:
    """(host, service) → generation of all that is held; services after those that they depend on."""
    found = [result for result in rollout.results.values() if result.waits]
    order = {service: position for position, service in enumerate(NAMES)}
    found.sort(key=lambda result: order.get(result.service, len(order)))
    return {(result.host, result.service): result.generation for result in found}


def begin(rollout: Rollout, host: str, services: Sequence[str]) -> None:
    """Note that a host is about to move: if its connection is lost now, it may have gone ahead."""
    for service in services:
        rollout.result(host, service).state = "provisional"


def note(
    rollout: Rollout,
    host: str,
    step: str,
    answer: Mapping[str, Any] | None,
    text: str,
    *,
    good: bool,
    since: float,
) -> None:
    """Note how a step ended on a host; `since`: time.monotonic() when it began."""
    told = dict(outcomes(answer or {}))
    if good and answer is not None:
        for service, entry in told.items():
            _note_good(rollout, host, service, step, entry, since)
        for result in rollout.results.values():
            if result.host == host and result.waits and result.service not in told:
                result.state = "unchanged"  # the host says that it had no part in this
        return
    rollout.fail(failure_of(host, TOLD[step], None if answer is None else dict(answer), text))
    if step == ASK:
        return
    lost = answer is None or bool(answer.get("lost"))
    for service in [service for on, service in rollout.way_back if on == host]:
        result, entry = rollout.result(host, service), told.get(service, {})
        rollout.spent(host, service, TOLD[step], since, "failed", entry)
        if lost:
            result.state = "provisional"  # it may have gone ahead
        elif step == HOLD:
            _note_left(result, entry.get("generation") or result.generation)
        elif step == BACK and entry.get("generation"):
            _note_left(result, entry["generation"])


def _note_good(
    rollout: Rollout, host: str, service: str, step: str, entry: Mapping[str, Any], since: float
) -> None:
    if step == ASK:
        rollout.way_back[host, service] = str(entry.get("attempted"))
        return
    if step == HOLD:
        seconds = float(entry.get("seconds", time.monotonic() - since))
        apply(rollout, ToolAnswer(host, "rollback", service, "error" not in entry, entry, seconds=seconds))
        return
    result = rollout.result(host, service)
    result.seconds += time.monotonic() - since
    rollout.spent(host, service, TOLD[step], since, "changed" if entry.get("changed") else "unchanged", entry)
    if step == BACK:
        _note_left(result, entry.get("generation"))
        rollout.put_back.append(f"{service} on {host}")


def _note_left(result: ServiceResult, generation: str | None) -> None:
    """It runs again what ran before this run."""
    result.generation = str(generation or result.generation)
    result.state, result.version, result.changed = "reverted", result.previous_version, False
