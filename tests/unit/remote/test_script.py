"""What a module prints on a host is its answer, if it is one."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deploy.remote import script, ssh


def here(_variables: Mapping[str, Any], command: Sequence[str], *, stdin: str, timeout_s: float) -> ssh.Reply:
    """This machine in the place of a host."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return ssh.Reply(done.returncode, done.stdout, done.stderr)


def module(path: Path, text: str) -> ModuleType:
    path.write_text(text)
    made = ModuleType("told")
    made.__file__ = str(path)
    return made


ECHO = "import json, sys\nprint(json.dumps({'given': sys.argv[1:], 'read': sys.stdin.read()}))\n"


def test_arguments_and_input_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "run", here)
    told = script.ask({}, module(tmp_path / "m.py", ECHO), "a b", "ü", stdin="x", timeout_s=20)
    assert told == {"given": ["a b", "ü"], "read": "x"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise SystemExit('no such backup')", "no such backup"),
        ("print('{')", "no answer that can be read"),
        ("print('[1]')", "no answer that can be read"),
        ("pass", "no answer that can be read"),
        ("print('[' * 100000)", "no answer that can be read"),
    ],
)
def test_what_is_no_answer_is_an_error(
    text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "run", here)
    with pytest.raises(script.ScriptError, match=why):
        script.ask({}, module(tmp_path / "m.py", text), timeout_s=20)
