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

from deploy.inventory import Fleet, fleet
from deploy.rollout import Failure, Rollout
from deploy.vault_password import PROJECT

GROUP = "windows"
PLAY_TIMEOUT_S = 1500
_REPORT = re.compile(r"^report: (\S+)/report\.md$", re.MULTILINE)


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


def command(playbook: str, inventory: Path, hosts: Sequence[str], tags: str, *, check: bool) -> list[str]:
    """The ansible-playbook command line for these hosts."""
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), playbook]
    words += ["--tags", tags, "--limit", ",".join(hosts)]
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


@operation()
def deployed(rollout: Rollout, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """Deploy the Windows gateways; a failure ends the run before a Linux host is touched."""
    yield FunctionCommand(_deploy, (rollout, tuple(hosts)), {})


@operation()
def put_back(rollout: Rollout, hosts: Sequence[str]) -> Generator[FunctionCommand, None, None]:
    """When anything failed afterwards: roll back the Windows gateways that this run changed."""
    if rollout.failed:
        yield FunctionCommand(_put_back, (rollout, tuple(hosts)), {})


def check(rollout: Rollout, hosts: Sequence[str]) -> None:
    """What a deployment would do on the Windows gateways (`--dry`)."""
    _play(rollout, "site.yml", hosts, "baseline,gateway", check=True)


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


def _play(rollout: Rollout, playbook: str, hosts: Sequence[str], tags: str, *, check: bool) -> bool:
    """Run a playbook for these hosts; note in the run's record how it ended."""
    words = command(playbook, fleet().inventory, hosts, tags, check=check)
    began = time.monotonic()
    try:
        answer = subprocess.run(
            words,
            cwd=PROJECT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
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
    if found:
        outcome(json.loads((PROJECT / found[-1] / "record.json").read_text(encoding="utf-8")), rollout)
    if answer.returncode != 0 and not rollout.failures:
        lines = [line for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
        reason = lines[-1] if lines else "it said nothing"
        rollout.fail(Failure(hosts[0], playbook, reason, f"run it by hand: {' '.join(words)}"))
    said = "checked" if check else "done" if answer.returncode == 0 else "failed"
    print(f"Windows gateways: {', '.join(hosts)} {said} in {time.monotonic() - began:.1f} s", flush=True)
    return answer.returncode == 0
