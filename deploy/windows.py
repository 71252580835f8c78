"""Windows gateways in a pyinfra run: pyinfra only does Linux, so the Ansible play is run for them, first.

The play confirms the Windows gateways before a Linux host is touched. When a Linux host fails afterwards, the
Windows gateways that this run changed are rolled back, so that the fleet is old as a whole again.
"""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pyinfra.api import FunctionCommand, operation
from pyinfra.api.exceptions import OperationError

from deploy.fleet_lock import HELD
from deploy.inventory import Fleet, fleet
from deploy.rollout import DEPLOYMENT, Failure, Rollout
from deploy.vault_password import PROJECT

GROUP = "windows"
PHASE = "Windows gateways"
PLAY_TIMEOUT_S = 1500
_outcomes: list[str] = []
"""How the plays of this process ended, in one word each."""
_REPORT = re.compile(r"^report: (\S+)/report\.html$", re.MULTILINE)


def targets(of: Fleet, limit: Sequence[str], exclude: Sequence[str]) -> tuple[str, ...]:
    """Windows gateways that a run with these --limit and --exclude patterns is for."""
    return tuple(
        host
        for host in of.in_group(GROUP)
        if host in of.in_group("gateway")
        and (not limit or chosen_by(limit, host, of))
        and not chosen_by(exclude, host, of)
    )


def chosen_by(patterns: Sequence[str], host: str, of: Fleet) -> bool:
    """Whether a host is named by one of these patterns or groups."""
    groups = [group for group, members in of.groups.items() if host in members]
    return any(word in groups or fnmatch(host, word) for word in patterns)


def command(
    playbook: str,
    inventory: Path,
    hosts: Sequence[str],
    tags: str,
    *,
    check: bool,
    to: str | None = None,
    strategy: str = "",
) -> list[str]:
    """The ansible-playbook command line for these hosts; `to` names the generation to go back to."""
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), playbook]
    words += ["--tags", tags, "--limit", ",".join(hosts)]
    words += ["-e", f"to={to}"] if to else []
    words += ["-e", f"fleet_strategy={strategy}"] if strategy else []
    return [*words, "--check"] if check else words


def outcome(record: Mapping[str, Any], into: Rollout) -> None:
    """Take over services and failures from the record that the play has kept."""
    for entry in record.get("services", ()):
        result = into.result(str(entry["host"]), str(entry["service"]))
        result.generation, result.previous = str(entry["generation"]), entry["previous"]
        result.state, result.changed = str(entry["state"]), bool(entry["changed"])
        result.seconds += float(entry["seconds"])
    for entry in record.get("failures", ()):
        into.fail(Failure(**{**entry, "journal": tuple(entry["journal"])}))


def deploy(rollout: Rollout, hosts: Sequence[str]) -> None:
    """For deploy.py: deploy the Windows gateways before anything else; in a dry run, say how to look."""
    if rollout.dry:
        _say_once("site.yml", hosts, "baseline,gateway")
    elif hosts:
        deployed(rollout, hosts, name=PHASE, _run_once=True)


def roll_back(rollout: Rollout, hosts: Sequence[str], to: str | None) -> None:
    """For rollback.py: roll the Windows gateways back; in a dry run, say how to look."""
    if rollout.dry:
        _say_once("rollback.yml", hosts, "gateway")
    elif hosts:
        rolled_back(rollout, hosts, to, name=PHASE, _run_once=True)


def settle(rollout: Rollout, hosts: Sequence[str]) -> None:
    """For deploy.py, at the end: put back what this run changed when anything failed afterwards."""
    if hosts and not rollout.dry:
        put_back(rollout, hosts, name="Put back Windows gateways", _run_once=True)


def nothing_changed(phase: str) -> bool:
    """Whether the play of this phase found everything as it should be."""
    return phase == PHASE and _outcomes == ["unchanged"]


@operation()
def deployed(rollout: Rollout, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """Deploy the Windows gateways; a failure ends the run before a Linux host is touched."""
    yield FunctionCommand(_deploy, (rollout, tuple(hosts)), {})


@operation()
def rolled_back(
    rollout: Rollout, hosts: Sequence[str], to: str | None
) -> Generator[FunctionCommand, None, None]:
    """Roll the Windows gateways back; a failure ends the run before a Linux host is touched."""
    yield FunctionCommand(_roll_back, (rollout, tuple(hosts), to), {})


@operation()
def put_back(rollout: Rollout, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """When anything failed afterwards: roll back the Windows gateways that this run changed."""
    if rollout.failed:
        yield FunctionCommand(_put_back, (rollout, tuple(hosts)), {})


def _say_once(playbook: str, hosts: Sequence[str], tags: str) -> None:
    """Name the command that looks at the Windows gateways; pyinfra reads deploy files once per host."""
    if hosts and not _outcomes:
        _outcomes.append("not looked at")
        words = command(playbook, fleet().inventory, hosts, tags, check=True)
        line = " ".join([Path(words[0]).name, *words[1:]])
        print(f"Windows gateways ({', '.join(hosts)}) are not looked at here: {line}", flush=True)


def _roll_back(rollout: Rollout, hosts: Sequence[str], to: str | None) -> None:
    if not _play(rollout, "rollback.yml", hosts, "gateway", check=False, to=to):
        raise OperationError("the Windows gateways could not be rolled back; the reason is below")


def _deploy(rollout: Rollout, hosts: Sequence[str]) -> None:
    if not _play(rollout, "site.yml", hosts, "baseline,gateway", check=False):
        raise OperationError("the Windows gateways could not be deployed; the reason is below")


def _put_back(rollout: Rollout, hosts: Sequence[str]) -> None:
    changed = [
        host
        for host in hosts
        if rollout.result(host, "gateway").changed and rollout.result(host, "gateway").previous
    ]
    if changed and _play(rollout, "rollback.yml", changed, "gateway", check=False):
        rollout.put_back += [f"gateway on {host}" for host in changed]


def _play(
    rollout: Rollout, playbook: str, hosts: Sequence[str], tags: str, *, check: bool, to: str | None = None
) -> bool:
    """Run a playbook for these hosts; note in the run's record how it ended."""
    strategy = rollout.strategy if playbook == "site.yml" else ""
    words = command(playbook, fleet().inventory, hosts, tags, check=check, to=to, strategy=strategy)
    began = time.monotonic()
    try:
        answer = subprocess.run(
            words,
            cwd=PROJECT,
            # One deployment, though two engines carry it out: a rollback of the fleet finds it under one id.
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", DEPLOYMENT: rollout.id, HELD: rollout.id},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PLAY_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"{playbook} for the Windows gateways did not end: {type(error).__name__}"
        rollout.fail(Failure(hosts[0], playbook, reason, f"run it by hand: {' '.join(words)}"))
        return False
    found = _REPORT.findall(answer.stdout)
    record = {}
    if found:
        record = json.loads((PROJECT / found[-1] / "record.json").read_text(encoding="utf-8"))
        outcome(record, rollout)
    _outcomes.append(str(record.get("outcome", "unknown")))
    if answer.returncode != 0 and not rollout.failures:
        lines = [line for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
        reason = lines[-1] if lines else "it said nothing"
        rollout.fail(Failure(hosts[0], playbook, reason, f"run it by hand: {' '.join(words)}"))
    said = "checked" if check else "done" if answer.returncode == 0 else "failed"
    print(f"Windows gateways: {', '.join(hosts)} {said} in {time.monotonic() - began:.1f} s", flush=True)
    return answer.returncode == 0
