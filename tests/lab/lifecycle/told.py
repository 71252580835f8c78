"""What a run said of itself beforehand (`--dry`, `--check`); pure."""

from __future__ import annotations

import re

from tests.lab.lifecycle.changes import Member

_RESTARTS = re.compile(r"restarts   (?P<services>[a-z, ]+) on (?P<hosts>[a-z0-9, -]+)")
_LIVE = re.compile(r"live       (?P<services>[a-z, ]+) on (?P<hosts>[a-z0-9, -]+): no restart")


def restarts(output: str) -> set[Member]:
    """(host, service) of everything that the consequences say restarts."""
    return _members(_RESTARTS, output)


def live(output: str) -> set[Member]:
    """(host, service) of everything that they say changes without a restart."""
    return _members(_LIVE, output)


def _members(line: re.Pattern[str], output: str) -> set[Member]:
    return {
        (host, service)
        for found in line.finditer(output)
        for host in found["hosts"].split(", ")
        for service in found["services"].split(", ")
    }


def nothing_to_do(output: str) -> bool:
    """Whether the plan has no step."""
    return "no service has anything to do" in output
