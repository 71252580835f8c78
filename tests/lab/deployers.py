"""Deployments that run beside a test, and what the Hub says of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.handle import Lab
from lab.state import PROJECT

TOOL = "/usr/local/sbin/mt5crs-release"
JUDGED = "judge"
"""The phase in which a rollback of the fleet has moved every host, and nothing is decided yet."""


def kept(lab: Lab) -> dict[str, Any]:
    """The deployments that the Hub keeps, and who holds the fleet's lock."""
    found: dict[str, Any] = json.loads(lab.exec("hub-01", [TOOL, "deployment", "list", "--json"]).stdout)
    return found


def begin(
    inventory: Path, file: str = "deploy.py", *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A run of a deploy file with pyinfra, or of a playbook with Ansible, in a process group of its own."""
    if file.endswith(".yml"):
        program, words = "ansible-playbook", ["-i", str(inventory), file, *arguments]
    else:
        program, words = "pyinfra", ["-y", *arguments, str(inventory.with_suffix(".py")), file]
    return subprocess.Popen(
        [str(Path(sys.executable).with_name(program)), *words],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def until(lab: Lab, phase: str) -> str:
    """Wait until the phase of the lock's holder matches this expression from its start; returns its id."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        holder = kept(lab)["holder"]
        if holder is not None and re.match(phase, str(holder["phase"])):
            return str(holder["id"])
        time.sleep(0.2)
    raise AssertionError(f"nobody was in phase {phase}")
