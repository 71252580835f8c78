"""Rules on the code that is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from deploy.policy.facts import LAB, Facts
from deploy.policy.rule import FLEET, Broken, Rule

_OLD = timedelta(days=180)
_UNKNOWN, _CHANGED = "unknown", "+changes"


def _unrecorded(facts: Facts) -> Iterator[Broken]:
    if facts.environment == LAB:
        return
    for bundle in facts.bundles:
        if bundle.commit.startswith(_UNKNOWN):
            yield Broken(FLEET, f"nobody knows from which commit {bundle.name} was built")
        elif bundle.commit.endswith(_CHANGED):
            yield Broken(FLEET, f"{bundle.name} was built from files that were not committed")


def _mixed(facts: Facts) -> Iterator[Broken]:
    commits = sorted({bundle.commit for bundle in facts.bundles})
    if len(commits) > 1:
        names = ", ".join(f"{bundle.name} of {bundle.commit[:12]}" for bundle in facts.bundles)
        yield Broken(FLEET, f"hosts would run code of different commits: {names}")


def _unpinned(facts: Facts) -> Iterator[Broken]:
    for bundle in facts.bundles:
        for line in bundle.unpinned:
            yield Broken(FLEET, f"{bundle.name} requires {line!r} without an exact version and its hash")


def _old(facts: Facts) -> Iterator[Broken]:
    for bundle in facts.bundles:
        if bundle.built is not None and facts.now - bundle.built > _OLD:
            yield Broken(FLEET, f"{bundle.name} is from {bundle.built:%Y-%m-%d}")


RULES = (
    Rule(
        "COD-001",
        "P1",
        "Deployed code is that of a commit",
        "What is in no commit cannot be built again, reviewed or compared.",
        "Commit, and build again with `make bundle`.",
        _unrecorded,
    ),
    Rule(
        "COD-002",
        "P0",
        "All hosts run code of one commit",
        "Hosts with old code beside new ones lost 440 million dollars in 45 minutes (SEC 34-70694).",
        "Build all bundles again with `make bundle`, and name the new ones.",
        _mixed,
    ),
    Rule(
        "COD-003",
        "P1",
        "Every package of a bundle has an exact version and hash",
        "Otherwise an installation takes what a registry offers on that day.",
        "Build again with `make bundle`, which takes both from uv.lock.",
        _unpinned,
    ),
    Rule(
        "COD-004",
        "P3",
        "Deployed code is not older than 180 days",
        "Its packages lack half a year of security fixes.",
        "`uv lock --upgrade`, test, and build again.",
        _old,
    ),
)
