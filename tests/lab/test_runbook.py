"""Every command that the runbook shows does on a fleet what it is shown for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lab.state import PROJECT
from tests.lab.engines import Fleet

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.slow(reason="some thirty commands, one after the other; each is tried by itself elsewhere"),
]

ELSEWHERE = {
    "start": "tests/lab/test_start_and_stop.py",
    "stop": "tests/lab/test_start_and_stop.py",
    "decommission": "tests/lab/test_decommission.py",
    "replace": "tests/lab/lifecycle/test_replaced.py",
    "apt": "tests/lab/test_upgraded_host.py",
}
"""Commands that end, begin or remove something; they have tests of their own."""
MAY_END_WITH = {
    "preflight": {0, 2},
    "report": {0, 1},
    "incident monthly": {0, 1},
    "secrets check": {0, 1},
    "policy check": {0, 1},
    "orders": {0},
}
"""What else than 0 is an answer: a lab is no-go for live trading, and has no month behind it."""
_NO_ANSWER = re.compile(r"Traceback|No such (command|option)|Usage: |Missing argument")


def commands() -> list[str]:
    """Every command in a block of the runbook, without its comment."""
    text = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.join(shlex.split(line[2:], comments=True)) for line in lines]


def name_of(command: str) -> str:
    """The subcommand of `mt5crs --inventory …`, or what is run on a host; empty: it is none of these."""
    words = shlex.split(command)
    if words[:1] == ["ssh"]:
        return words[3]
    if words[:1] != ["mt5crs"]:
        return ""
    told = [word for word in words[3:] if not word.startswith("-")]
    two = " ".join(told[:2])
    return two if two in MAY_END_WITH else told[0]


def test_the_commands_that_are_left_out_have_tests_of_their_own() -> None:
    assert all((PROJECT / path).is_file() for path in ELSEWHERE.values())
    assert len(commands()) >= 25


def test_every_command_of_the_runbook_works(fleet: Fleet) -> None:
    address = fleet.lab.plan.host("inf-01").address
    failed: list[str] = []
    for command in commands():
        if name_of(command) in ELSEWHERE:
            continue
        words = [
            word.replace("inventory/production", str(fleet.inventory.with_suffix("")))
            for word in shlex.split(command.replace("<inf>", "inf-01").replace("<host>", address))
        ]
        status, output = said(fleet, words, address)
        allowed = MAY_END_WITH.get(name_of(command), {0})
        print(f"{status} {command}")
        if status not in allowed or _NO_ANSWER.search(output):
            failed.append(f"{command}\n  ended with {status}: {output[-600:]}")
    assert not failed, "\n".join(failed)


def said(fleet: Fleet, words: list[str], address: str) -> tuple[int, str]:
    """Exit status and output of a command: here, or on the host that it names with ssh."""
    if words[0] == "ssh":
        host = "gtw-01" if "mt5crs-gateway" in words else "inf-01"
        assert words[1] in (f"ops@{address}", "ops@inf-01")
        assert words[2] == "sudo"
        done = fleet.lab.exec(host, words[3:], check=False)
        return done.returncode, done.stdout + done.stderr
    program = {"mt5crs": [sys.executable, "-m", "mt5crs"]}.get(words[0])
    if program is None:
        program = [str(Path(sys.executable).with_name(words[0]))]
    ran = subprocess.run(
        [*program, *words[1:]],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=PROJECT,
        env={**os.environ, "COLUMNS": "200"},
    )
    return ran.returncode, ran.stdout + ran.stderr
