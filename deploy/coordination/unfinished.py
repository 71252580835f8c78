"""What a dead deployment has left on the hosts: finished once it had decided, otherwise undone.

The decision is to confirm (everything is healthy everywhere), or to roll back (every host can). `needed`
decides from the record and from what the hosts say; `settle` does it. Only the fleet's lock holder may call
it. A generation that has gone back by itself after the decision to confirm is activated anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.fleet.services import NAMES
from deploy.remote import ssh, windows_play
from deploy.rollout import undo_steps
from deploy.rollout.answer import ToolAnswer
from deploy.rollout.batches import GATEWAY

CONFIRM, ROLL_BACK = "confirm", "roll back"
"""The phases from which on a run is finished instead of undone."""
PUT_BACK = "put back"
"""How the phases begin in which a deployment undoes itself, also what it has confirmed by then."""
_STATUS_TIMEOUT_S = 30
_ACT_TIMEOUT_S = 240
_TOGETHER = 20


@dataclass(frozen=True)
class Action:
    """One call of the release tool: `verb` is confirm, activate, rollback, revert, leave, or back.

    revert is for what waits for its confirmation (every release of the tool knows it), leave for the rest;
    back is for all services of a host that have undone the deployment `generation`.
    """

    host: str
    service: str
    verb: str
    generation: str

    @property
    def arguments(self) -> list[str]:
        """What the release tool of the host is called with."""
        if self.verb == "revert":
            return ["revert", self.service, "--json"]
        if self.verb == "back":
            return undo_steps.arguments(undo_steps.BACK, self.generation, 0)
        if self.verb == "leave":
            return ["revert", self.service, "--confirmed", self.generation, "--json"]
        named = ["--to" if self.verb == "rollback" else "--generation", self.generation]
        at_once = ["--confirm-timeout", "0"] if self.verb == "activate" else []
        return [self.verb, self.service, *named, *at_once, "--json"]

    def answer(self, good: bool, document: Mapping[str, Any] | None, text: str, seconds: float) -> ToolAnswer:
        """What was said to it."""
        return ToolAnswer(self.host, self.arguments[0], self.service, good, document, text, seconds)

    @property
    def what(self) -> str:
        """Service, generation and host."""
        if self.verb == "back":
            return f"the undo of {self.generation} on {self.host}"
        return f"{self.service} {self.generation} on {self.host}"

    @property
    def told(self) -> str:
        """That it is done; a rollback is to this generation, all others are of it."""
        if self.verb == "rollback":
            return f"{self.service} on {self.host} rolled back to {self.generation}"
        words = {"confirm": "confirmed", "activate": "activated again"}
        return f"{self.what} {words.get(self.verb, 'put back')}"


def target(host: str, service: str, generation: str) -> str:
    """One service of a decision, as the Hub keeps it."""
    return f"{host}:{service}:{generation}"


def targets(record: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """What a record's decision names, in its order: (host, service) → generation."""
    parts = (str(text).split(":", 2) for text in record.get("provisional") or ())
    return {(host, service): generation for host, service, generation in parts}


@dataclass
class Settled:
    """What became of an unfinished deployment."""

    outcome: str
    sentence: str
    lines: list[str] = field(default_factory=list)
    answers: list[ToolAnswer] = field(default_factory=list)
    """What was said to the calls that succeeded."""
    failures: list[str] = field(default_factory=list)
    hosts: tuple[str, ...] = ()
    """All hosts it was about, if anything was done or goes back by itself; others depend on that."""
    overtook: bool = False
    """Whether services have left a generation that was confirmed: a plan from before that does not count."""


def needed(record: Mapping[str, Any], statuses: Mapping[str, Mapping[str, Any]]) -> list[Action]:
    """The calls that settle a deployment, in the order in which they are to be made on each host."""
    phase = str(record.get("phase") or "")
    putting_back = phase.startswith(PUT_BACK)
    decided = targets(record) if phase in (CONFIRM, ROLL_BACK) or putting_back else {}
    found = []
    for host, status in statuses.items():
        undid = _undid(status, {of: name for (on, of), name in decided.items() if on == host})
        if putting_back and undid:
            # What its services share keeps each of them from coming back healthy alone.
            found.append(Action(host, "", "back", undid))
            continue
        for service in NAMES if phase in (CONFIRM, ROLL_BACK) else reversed(NAMES):
            now = status.get("services", {}).get(service)
            if now is None:
                continue
            wanted = decided.get((host, service))
            if putting_back:
                if now.get("pending"):
                    found.append(Action(host, service, "revert", str(now["pending"])))
                elif wanted is not None and now.get("current") == wanted:
                    found.append(Action(host, service, "leave", wanted))
            elif wanted is not None and phase == ROLL_BACK:
                if now.get("pending") == wanted:
                    found.append(Action(host, service, "confirm", wanted))
                elif now.get("current") != wanted or now.get("pending"):
                    found.append(Action(host, service, "rollback", wanted))
            elif wanted is not None and now.get("pending") == wanted:
                found.append(Action(host, service, "confirm", wanted))
            elif wanted is not None and now.get("current") != wanted:
                found.append(Action(host, service, "activate", wanted))
            elif wanted is None and now.get("pending"):
                found.append(Action(host, service, "revert", str(now["pending"])))
    return found


def _undid(status: Mapping[str, Any], decided: Mapping[str, str]) -> str:
    """The deployment that what the decision names on a host has undone, if that is what it did."""
    services = status.get("services", {})
    return next(
        (
            str(services[service]["undid"])
            for service, name in decided.items()
            if service in services
            and services[service].get("current") == name
            and services[service].get("undid")
        ),
        "",
    )


def settle(fleet: Fleet, record: Mapping[str, Any]) -> Settled:
    """Finish or undo a deployment on every host that can be asked."""
    named = [str(host) for host in record.get("hosts") or fleet.hosts]
    hosts = [host for host in named if host in fleet.hosts]
    gone = [host for host in named if host not in fleet.hosts]
    statuses = _statuses(fleet, hosts)
    silent = [host for host in hosts if host not in statuses]
    failures = [
        f"{host} does not answer and does not go back by itself: mend it, or take it out of the inventory"
        for host in stuck(record, silent)
    ]
    finish = record.get("phase") in (CONFIRM, ROLL_BACK)
    done: list[tuple[Action, ToolAnswer]] = []
    for wave in [] if failures else waves(record, needed(record, statuses)):
        done += _act(fleet, wave)
        if not all(answer.good for _, answer in done):
            break
    did = [action.told for action, answer in done if answer.good]
    failures += [f"{action.verb} {action.what}: {answer.why}" for action, answer in done if not answer.good]
    outcome = "changed" if finish else "undone"
    word = "Finished" if finish else "Undone"
    sentence = f"{word} by the next run: {'; '.join(did) or 'nothing was left to do on the hosts'}."
    if silent:
        sentence += f" Not asked, they go back by themselves: {', '.join(silent)}."
    if gone:
        sentence += f" Not in the inventory any more, so not asked: {', '.join(gone)}."
    lines = did or ["nothing is left of it on the hosts"]
    if gone:
        lines.append(f"not in the inventory any more, so not asked what it left there: {', '.join(gone)}")
    if silent:
        lines.append(f"could not be asked, goes back by itself: {', '.join(silent)}")
    answers = [answer for _, answer in done if answer.good]
    moved = tuple(hosts) if done or silent else ()
    return Settled(
        outcome, sentence, lines, answers, failures, moved, overtakes(action for action, _ in done)
    )


def overtakes(actions: Iterable[Action]) -> bool:
    """Whether any of the calls leaves a generation that was confirmed before it."""
    return any(action.verb in ("leave", "back", "rollback") for action in actions)


def waves(record: Mapping[str, Any], actions: Iterable[Action]) -> list[list[list[Action]]]:
    """The calls of each host that are made beside each other, one wave of hosts after the other.

    A rollback keeps the order of its decision, gateways before or after the rest; all else is one wave.
    """
    by_host: dict[str, list[Action]] = {}
    for action in actions:
        by_host.setdefault(action.host, []).append(action)
    if record.get("phase") != ROLL_BACK:
        return [list(by_host.values())]
    order = list(targets(record))
    gateways = {host for host, service in order if service == GATEWAY}
    first = bool(order) and order[0][0] in gateways
    return [
        [calls for host, calls in by_host.items() if (host in gateways) is now] for now in (first, not first)
    ]


def stuck(record: Mapping[str, Any], silent: Iterable[str]) -> list[str]:
    """Hosts that cannot be asked and may run for good what the others are about to leave.

    What waits for its confirmation goes back by itself; what is confirmed, or has yet to be rolled back, does
    not.
    """
    phase = str(record.get("phase") or "")
    if phase != ROLL_BACK and not phase.startswith(PUT_BACK):
        return []
    concerned = {host for host, _ in targets(record)}
    return [host for host in silent if host in concerned]


def _statuses(fleet: Fleet, hosts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the release tool of each host says of it; hosts that do not are left out."""
    windows = [host for host in hosts if host in fleet.in_group(WINDOWS)]
    linux = [host for host in hosts if host not in windows]
    with ThreadPoolExecutor(_TOGETHER) as pool:
        played = pool.submit(windows_play.run, fleet.inventory, windows, "observe", {}) if windows else None
        replies = zip(linux, pool.map(lambda host: _status(fleet, host), linux), strict=True)
        answers = {host: reply.document for host, reply in replies if reply.status == 0}
        found = {host: answer for host, answer in answers.items() if answer is not None}
    return found if played is None else {**found, **played.result().statuses}


def _status(fleet: Fleet, host: str) -> ssh.Reply:
    return ssh.run(fleet.hosts[host], ssh.STATUS, timeout_s=_STATUS_TIMEOUT_S)


def _act(fleet: Fleet, wave: Sequence[Sequence[Action]]) -> list[tuple[Action, ToolAnswer]]:
    """Make the calls of a wave, hosts beside each other; each with what was said to it."""
    windows = [calls for calls in wave if calls[0].host in fleet.in_group(WINDOWS)]
    linux = [calls for calls in wave if calls not in windows]
    with ThreadPoolExecutor(_TOGETHER) as pool:
        played = pool.submit(_act_on_windows, fleet, windows) if windows else None
        said = [one for host in pool.map(lambda calls: _act_on_linux(fleet, calls), linux) for one in host]
    return said if played is None else said + played.result()


def _act_on_linux(fleet: Fleet, calls: Iterable[Action]) -> list[tuple[Action, ToolAnswer]]:
    said = []
    for action in calls:
        command, began = [ssh.TOOL, *action.arguments], time.monotonic()
        reply = ssh.run(fleet.hosts[action.host], command, timeout_s=_ACT_TIMEOUT_S)
        good = reply.status == 0 and reply.document is not None
        said.append((action, action.answer(good, reply.document, reply.why, time.monotonic() - began)))
    return said


def _act_on_windows(fleet: Fleet, wave: Sequence[Sequence[Action]]) -> list[tuple[Action, ToolAnswer]]:
    """A Windows host has one service, the gateway, hence one call."""
    actions = {action.host: action for calls in wave for action in calls}
    known = {"windows_calls": {host: action.arguments for host, action in actions.items()}}
    played = windows_play.run(fleet.inventory, list(actions), "settle", known)
    reasons = {trouble.host: trouble.reason for trouble in played.troubles}
    answers = {answer.host: answer for answer in played.answers}
    return [
        (action, answers.get(host) or action.answer(False, None, reasons.get(host, "no answer"), 0.0))
        for host, action in actions.items()
    ]
