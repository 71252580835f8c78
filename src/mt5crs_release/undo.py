"""Undo a deployment on this host: every service that still runs what it brought goes back, last one first.

Each service is rolled back by a run of its own, with its own lock, journal and health gate; monitoring goes
back beside the others, since nothing depends on it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mt5crs_release import state
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.paths import Host, default_root
from mt5crs_release.state import Generation
from mt5crs_release.watchdog import own_command

ORDER = ("strategy", "reconciler", "gateway")
"""Last activated, first undone; services that are not named go back beside them."""

_TIMEOUT_S = 300


def newest(host: Host) -> Generation | None:
    """Return the running generation whose deployment is the newest; ``None``: none is recorded."""
    running = [entry for entry in _running(host).values() if entry.deployment and entry.deployed_at]
    return max(running, key=lambda entry: str(entry.deployed_at), default=None)


def undo(host: Host, deployment: str | None, *, dry_run: bool) -> dict[str, Any]:
    """Roll back what ``deployment`` brought.

    :param deployment: its id; ``None``: the newest on this host
    :raises RefusedError: a service of it cannot go back; then none does
    :raises FailedError: a service did not; what was left of its chain was not begun
    """
    if deployment is None:
        last = newest(host)
        if last is None:
            raise RefusedError(
                "no deployment is recorded for what runs on this host",
                remedy="roll the services back one by one: `mt5crs-release rollback SERVICE`",
            )
        deployment = str(last.deployment)
    services = [name for name, entry in _running(host).items() if entry.deployment == deployment]
    chain = [name for name in ORDER if name in services]
    chains = [chain, *([name] for name in services if name not in ORDER)]
    answers = _all(host, [[name] for name in services], ["--dry-run"])
    _complain(answers, deployment, RefusedError, "cannot be undone on this host")
    if not dry_run:
        answers = _all(host, chains, [])
        _complain(answers, deployment, FailedError, "was not undone completely")
    return {"changed": bool(services), "deployment": deployment, "services": answers}


def _running(host: Host) -> dict[str, Generation]:
    """Return the generation that every service of the host is on."""
    found = {}
    for name in host.services():
        record = state.load(name, host.service(name).state)
        entry = record.generations.get(record.current or "")
        if entry is not None:
            found[name] = entry
    return found


def _all(host: Host, chains: Sequence[Sequence[str]], options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run the chains beside each other, each in order and up to its first failure; return every answer."""
    answers: dict[str, dict[str, Any]] = {}

    def run(chain: Sequence[str]) -> None:
        for name in chain:
            answers[name] = _rollback(host, name, options)
            if "error" in answers[name]:
                return

    with ThreadPoolExecutor(max(1, len(chains))) as pool:
        list(pool.map(run, chains))
    return answers


def _rollback(host: Host, service: str, options: Sequence[str]) -> dict[str, Any]:
    command = [*own_command(Host(default_root())), "rollback", service, "--json", *options]
    command += ["--root", str(host.root)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        answer = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return {"error": {"kind": "failed", "message": f"{service}: {type(error).__name__}", "remedy": ""}}
    return answer if isinstance(answer, dict) else {"error": {"message": f"{service}: no answer"}}


def _complain(
    answers: dict[str, dict[str, Any]], deployment: str, kind: type[FailedError | RefusedError], what: str
) -> None:
    """:raises FailedError, RefusedError: a service has answered with an error; all of them are listed."""
    errors = [answer["error"] for answer in answers.values() if "error" in answer]
    if not errors:
        return
    journal = [line for answer in answers.values() if "error" in answer for line in answer.get("journal", ())]
    raise kind(
        f"deployment {deployment} {what}: " + "; ".join(str(error["message"]) for error in errors),
        remedy="; ".join(dict.fromkeys(str(error["remedy"]) for error in errors if error.get("remedy"))),
        details={"deployment": deployment, "services": answers, "journal": journal},
    )
