"""Runs a module of ours on a Linux host with the system's Python, as root; it is sent along, and not kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from deploy.remote import ssh


class ScriptError(RuntimeError):
    """It did not run, or gave no answer that can be read; the text says why."""


def run(
    variables: Mapping[str, Any], module: ModuleType, *arguments: str, stdin: str = "", timeout_s: float
) -> ssh.Reply:
    """Have the host with these variables run `module`, which imports Python's standard library alone."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    return ssh.run(variables, ["python3", "-c", source, *arguments], stdin=stdin, timeout_s=timeout_s)


def ask(
    variables: Mapping[str, Any], module: ModuleType, *arguments: str, stdin: str = "", timeout_s: float
) -> dict[str, Any]:
    """The JSON object that it printed; its texts are the host's, so not safe to show. Raises ScriptError."""
    reply = run(variables, module, *arguments, stdin=stdin, timeout_s=timeout_s)
    if reply.status != 0:
        raise ScriptError(reply.why)
    try:
        told = json.loads(reply.output)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ScriptError("it gave no answer that can be read")
    return told
