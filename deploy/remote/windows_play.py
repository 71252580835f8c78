"""One run of windows.yml for a pyinfra run, and what every host answered in it.

Ansible's JSON callback is read: what the release tool said, which tasks changed something, what failed. Tasks
with secrets (`no_log`) are censored in it as everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.controller.programs import MissingProgramError, require
from deploy.fleet.vault_password import PROJECT
from deploy.remote.release_call import CHANGING, ReleaseCall, call_of, document_of
from deploy.remote.ssh import last_line
from deploy.rollout.answer import ToolAnswer

PLAYBOOK = "windows.yml"
ASKS = "Ask the host with a program of ours"
"""Name of the task that does."""
TIMEOUT_S = 1500
_ANSWERED = set(CHANGING) - {"stage"}
"""What this run reports; staging is told by the run that stages, and `status` is a fact."""


@dataclass(frozen=True)
class Trouble:
    """A task that failed for another reason than the release tool's answer, or a host not reached."""

    host: str
    task: str
    reason: str


@dataclass
class Played:
    """How a run of the play ended."""

    good: bool = True
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The release tool's status by host, in the phase `observe`; `{}`: it is not there yet."""
    answers: list[ToolAnswer] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)
    """Names of the tasks that changed something (in check mode: would), by host."""
    troubles: list[Trouble] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    """What a program of ours printed, by host, in the phase `ask`."""


def command(
    inventory: Path, hosts: Sequence[str], phase: str, known: Mapping[str, Any], *, check: bool = False
) -> list[str]:
    """The command line of one phase for these hosts; `known` is given to it with -e."""
    words = [require("ansible-playbook"), "-i", str(inventory), PLAYBOOK]
    words += ["--tags", phase, "--limit", ",".join(hosts)]
    words += ["-e", json.dumps(known, sort_keys=True)] if known else []
    return [*words, "--check"] if check else words


def run(
    inventory: Path, hosts: Sequence[str], phase: str, known: Mapping[str, Any], *, check: bool = False
) -> Played:
    """Run one phase; what goes wrong is in the result."""
    try:
        words = command(inventory, hosts, phase, known, check=check)
    except MissingProgramError as error:
        return Played(False, troubles=[Trouble(hosts[0], phase, str(error))])
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    try:
        done = subprocess.run(
            words,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"ansible-playbook did not end: {type(error).__name__}"
        return Played(False, troubles=[Trouble(hosts[0], phase, reason)])
    try:
        played = read(json.loads(done.stdout[done.stdout.index("{") :]))
    except ValueError:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = lines[-1] if lines else "it said nothing"
        return Played(False, troubles=[Trouble(hosts[0], phase, reason)])
    played.good = done.returncode == 0
    if not played.good and not played.troubles and all(answer.good for answer in played.answers):
        played.troubles.append(
            Trouble(hosts[0], phase, f"it ended with {done.returncode} and gave no reason")
        )
    return played


def read(document: Mapping[str, Any]) -> Played:
    """What Ansible's JSON says of a run; pure."""
    played = Played()
    for host, name, seconds, result in _results(document):
        facts = result.get("ansible_facts") or {}
        if "release_status" in facts:
            played.statuses[host] = dict(facts["release_status"])
        if name == ASKS and not (result.get("failed") or result.get("unreachable")):
            played.said[host] = str(result.get("stdout", ""))
            continue
        call = call_of(result.get("cmd"))
        if call is not None and call.verb in _ANSWERED and not result.get("skipped"):
            played.answers.append(_answer(host, call, seconds, result))
        elif result.get("failed") or result.get("unreachable"):
            played.troubles.append(Trouble(host, name, _reason(result)))
        if result.get("changed") and not result.get("failed"):
            played.changed.setdefault(host, []).append(name)
    told = {answer.host for answer in played.answers if not answer.good}
    # The play's own last word on a release that failed says less than the release tool's.
    played.troubles = [one for one in played.troubles if one.host not in told]
    return played


def _results(document: Mapping[str, Any]) -> Iterator[tuple[str, str, float, Mapping[str, Any]]]:
    for play in document.get("plays", ()):
        for task in play.get("tasks", ()):
            seconds = _seconds(task["task"].get("duration") or {})
            for host, result in task.get("hosts", {}).items():
                # Ansible puts the role in front: `release : Stage gateway`.
                name = str(task["task"].get("name", "")).rpartition(" : ")[2]
                yield str(host), name, seconds, result


def _seconds(duration: Mapping[str, Any]) -> float:
    try:
        began = datetime.fromisoformat(str(duration["start"]).replace("Z", "+00:00"))
        ended = datetime.fromisoformat(str(duration["end"]).replace("Z", "+00:00"))
    except (KeyError, ValueError):
        return 0.0
    return (ended - began).total_seconds()


def _reason(result: Mapping[str, Any]) -> str:
    """Why a task failed: in the release tool's own words, if there are any."""
    document = document_of(str(result.get("stdout", "")))
    error = None if document is None else document.get("error")
    if isinstance(error, Mapping):
        return f"{error.get('message')}; {error.get('remedy')}"
    if result.get("rc") and str(result.get("stderr") or "").strip():
        return last_line(str(result["stderr"]))  # of a program that failed; `msg` says no more than that
    return str(result.get("msg") or "it gave no reason").strip()


def _answer(host: str, call: ReleaseCall, seconds: float, result: Mapping[str, Any]) -> ToolAnswer:
    said = str(result.get("stdout", ""))
    document = document_of(said)
    good = result.get("rc") == 0 and document is not None
    text = f"{said}\n{result.get('stderr') or result.get('msg') or ''}"
    return ToolAnswer(host, call.verb, call.service, good, document, text.strip(), seconds)
