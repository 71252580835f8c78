"""Rules on the form of settings. A deployment cannot do without them, so nothing waives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from deploy.policy.facts import Facts
from deploy.policy.rule import FLEET, Broken, Rule


def _by_host(problems: Iterable[str], facts: Facts) -> Iterator[Broken]:
    for problem in problems:
        host, separator, text = problem.partition(": ")
        known = bool(separator) and host in facts.hosts
        yield Broken(host, text) if known else Broken(FLEET, problem)


RULES = (
    Rule(
        "SET-001",
        "P0",
        "Every setting is known, there, of its type and in its range, and fits the others",
        "A service with a wrong setting does not start, or does something else than was meant.",
        "Correct it where the finding says; `mt5crs … config explain HOST KEY` shows where a value is from.",
        lambda facts: _by_host(facts.form_problems, facts),
        waivable=False,
    ),
    Rule(
        "NET-001",
        "P0",
        "Every host has an address of its own that a single host can have",
        "The address of a network (RFC 922), a broadcast address (RFC 919), one outside of fleet_networks "
        "or one that two hosts share reaches nobody, or the wrong host.",
        "Correct ansible_host in the inventory, or fleet_networks.",
        lambda facts: _by_host(facts.address_problems, facts),
        waivable=False,
    ),
)
