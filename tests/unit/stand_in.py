"""Stand-ins for ssh: a program that is told what would be run there, and answers for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.remote.ssh import BEGINS

SSH = rf"""#!/bin/sh
for word in "$@"; do case $word in 10.9.9.*) host=$word;; esac; line=$word; done
command=$(echo "$line" | sed 's/.*echo \([A-Za-z0-9+/=]*\) .*/\1/' | base64 -d | sed 1d)
echo '{BEGINS}'
"""
"""The script goes on with `$host` (its address) and `$command` (a line of sh)."""


Hub = Callable[..., list[str]]
"""Has `deployment open` answered with a status and a document from here on; gives what was asked so far."""


def hub_that_answers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Every host is a Hub whose release tool says so; anything else it is asked is `{}`."""
    calls = directory / "calls"

    def answers(status: int, document: dict[str, Any]) -> list[str]:
        ssh = directory / "bin/ssh"
        ssh.parent.mkdir(exist_ok=True)
        (directory / "answer").write_text(json.dumps(document))
        opened = f'*" open "*) cat {directory}/answer; exit {status};;'
        ssh.write_text(f"""{SSH}cat >> {calls}; echo "$command" >> {calls}
case "$command " in {opened} esac
echo '{{}}'
""")
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:/usr/bin:/bin")
        return calls.read_text().splitlines() if calls.exists() else []

    return answers


def closed(asked: list[str]) -> dict[str, Any]:
    """The record that the Hub was given at the end."""
    (line,) = [one for one in asked if '"settled"' in one]
    record: dict[str, Any] = json.loads(line[: line.rindex("}") + 1])["record"]
    return record
