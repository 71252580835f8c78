"""Runs a module of ours on Windows hosts, with the Python that a deployment brought.

Ansible alone reaches such hosts. We keep nothing of what it is told, but a log of Ansible's own (`log_path`)
would: no module that is run so prints a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from deploy.fleet.inventory import Fleet
from deploy.remote import ssh, windows_play

PHASE = "ask"
"""Tag of the play in windows.yml."""


def run(fleet: Fleet, hosts: Sequence[str], module: ModuleType, *arguments: str) -> dict[str, ssh.Reply]:
    """Have these hosts run `module`, which imports Python's standard library and the release tool alone."""
    known = {
        "windows_ask_program": Path(str(module.__file__)).read_text(encoding="ascii"),
        "windows_ask_arguments": list(arguments),
    }
    played = windows_play.run(fleet.inventory, hosts, PHASE, known)
    why = {one.host: one.reason for one in played.troubles}
    return {
        host: ssh.Reply(0, played.said[host], "")
        if host in played.said
        else ssh.Reply(None, "", why.get(host, next(iter(why.values()), "no answer")))
        for host in hosts
    }
