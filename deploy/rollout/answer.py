"""What the release tool says to a call, and what that means for the record of a run.

Alike for whoever made the call: pyinfra, Ansible, the play for Windows gateways, a rollback of the fleet.
Nothing here talks to a host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.rollout.record import Rollout, failure_of

ACCESS = "access"
"""The release tool's command that puts an earlier access list in force."""
_STEPS = {"revert": "put back", "rollback": "roll back"}
_STATES = {"activate": "provisional", "confirm": "confirmed", "rollback": "confirmed"}
"""What a service is in after a call whose answer does not say it: tools of an older release."""


@dataclass(frozen=True)
class ToolAnswer:
    """What the release tool said to one call on a host.

    `service` is empty for what concerns all services of the host (`undo`, `check`). `document` is the JSON
    object that it printed, None if it printed anything else; `text` is all its output. `good`: it ended with
    status 0, and there is a document. `asked`: the call only asked whether it could be done (`--dry-run`).
    """

    host: str
    verb: str
    service: str
    good: bool
    document: Mapping[str, Any] | None
    text: str = ""
    seconds: float = 0.0
    asked: bool = False

    @property
    def step(self) -> str:
        """What the call is named in spans and failures."""
        name = _STEPS.get(self.verb, self.verb)
        return f"ask to {name}" if self.asked else name

    @property
    def lost(self) -> bool:
        """Whether nobody knows what became of the call: the host may have gone ahead."""
        return self.document is None or bool(self.document.get("lost"))

    @property
    def told_at_once(self) -> str:
        """What people are to read on the way: who would gain and lose access, if that was asked; how a new
        version did in the shadow of what ran. Else empty.
        """
        told = self.document or {}
        if self.verb == ACCESS and self.asked and self.document is not None:
            return f"  {self.host}: {told.get('reason')}"
        if self.good and told.get("shadow"):
            return f"  {self.host}: {self.service} in the shadow: {told['shadow'].get('reason')}"
        return ""

    @property
    def why(self) -> str:
        """Why it failed, in the release tool's own words if there are any; empty when it is good."""
        said = (self.document or {}).get("error") or {}
        return "" if self.good else str(said.get("message") or self.text or "no answer")


def apply(rollout: Rollout, answer: ToolAnswer) -> None:
    """Take the answer to a call for one service, which has just ended, into the record of the run."""
    result, told = rollout.result(answer.host, answer.service), answer.document or {}
    outcome = "failed" if not answer.good else "changed" if told.get("changed") else "unchanged"
    result.seconds += answer.seconds
    since = time.monotonic() - answer.seconds
    rollout.spent(answer.host, answer.service, answer.step, since, outcome, told)
    if not answer.good:
        _apply_failure(rollout, answer)
        return
    before, result.generation = result.generation, str(told.get("generation") or result.generation)
    if answer.asked:
        if told.get("attempted") and answer.verb != ACCESS:
            rollout.way_back[answer.host, answer.service] = str(told["attempted"])
        return
    if answer.verb == "revert":
        result.generation = str(told.get("generation") or "")
        result.state, result.version, result.changed = "reverted", result.previous_version, False
        rollout.put_back.append(f"{answer.service} on {answer.host}")
        return
    result.version = told.get("version", result.version)
    result.changes = [str(name) for name in told.get("changes") or result.changes]
    if answer.verb == "stage":
        result.review = told.get("review", result.review)
        if result.generation != before:
            result.state = "staged"  # beside what runs, which is as it was
        return
    previous = told.get("previous", result.previous)
    result.previous = (before or previous) if answer.verb == "rollback" else previous
    result.changed = result.changed or bool(told.get("changed"))
    result.state = str(told.get("state") or _STATES.get(answer.verb, result.state))


def _apply_failure(rollout: Rollout, answer: ToolAnswer) -> None:
    """Whatever may run on is provisional: it is put back like the others, and is not said to have gone."""
    result, told = rollout.result(answer.host, answer.service), answer.document or {}
    step = f"{answer.step} {answer.service}".strip()
    rollout.fail(failure_of(answer.host, step, None if answer.document is None else dict(told), answer.text))
    if answer.verb in ("revert", "extend"):
        result.state = "provisional"
        return
    result.generation = str(told.get("generation") or result.generation)
    unknown = answer.lost and answer.verb in ("activate", "confirm")
    result.state, result.version = "provisional" if unknown else "failed", result.previous_version
