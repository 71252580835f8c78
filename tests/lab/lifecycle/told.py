"""What a run said of itself beforehand (`--dry`, `--check`); pure."""

from __future__ import annotations

import re

from tests.lab.lifecycle.changes import Member

_RESTARTS = re.compile(r"restarts   (?P<services>[a-z, ]+) on (?P<hosts>[a-z0-9, -]+)")


def restarts(output: str) -> set[Member]:
    """(host, service) of everything that the consequences say restarts."""
    return {
        (host, service)
        for found in _RESTARTS.finditer(output)
        for host in found["hosts"].split(", ")
        for service in found["services"].split(", ")
    }


def nothing_to_do(output: str) -> bool:
    """Whether the plan has no step."""
    return "no service has anything to do" in output
