"""Coverage by package, from coverage.py's JSON: how many branches were taken, in whatever process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

OVERALL, PACKAGE = 85.0, 70.0
"""Percent of branches that have to be taken: of everything, and of each package."""
BY_LABS: Final = ("deploy/operations", "lab", "plugins")
"""What mostly runs while lab fleets are deployed to: judged together with that, and left out before."""


@dataclass(frozen=True)
class Counted:
    """Branches and lines: how many there are, and how many ran."""

    branches: int = 0
    branches_ran: int = 0
    lines: int = 0
    lines_ran: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(
            self.branches + other.branches,
            self.branches_ran + other.branches_ran,
            self.lines + other.lines,
            self.lines_ran + other.lines_ran,
        )

    @property
    def percent(self) -> float:
        """Of branches; of lines where nothing branches; 100 where there is nothing."""
        whole, ran = (self.branches, self.branches_ran) if self.branches else (self.lines, self.lines_ran)
        return 100.0 * ran / whole if whole else 100.0

    @property
    def percent_lines(self) -> float:
        """Of lines."""
        return 100.0 * self.lines_ran / self.lines if self.lines else 100.0


def by_package(document: Mapping[str, Any]) -> dict[str, Counted]:
    """Every package (a directory with modules) and what ran of it."""
    found: dict[str, Counted] = defaultdict(Counted)
    for path, told in document["files"].items():
        of = told["summary"]
        found[str(PurePosixPath(path).parent)] += Counted(
            of["num_branches"], of["covered_branches"], of["num_statements"], of["covered_lines"]
        )
    return dict(sorted(found.items()))


def whole(packages: Mapping[str, Counted]) -> Counted:
    """All packages together."""
    return sum(packages.values(), Counted())


def without_labs(packages: Mapping[str, Counted]) -> dict[str, Counted]:
    """The packages that unit tests alone are judged by."""
    return {
        name: each
        for name, each in packages.items()
        if not any(name == labs or name.startswith(f"{labs}/") for labs in BY_LABS)
    }


def shortfalls(packages: Mapping[str, Counted]) -> list[str]:
    """What is below its bound, worst first; none when all is well."""
    everything = whole(packages)
    if not everything.lines:
        return ["nothing was measured: run `make coverage` again"]
    low = [(each.percent, name) for name, each in packages.items() if each.percent < PACKAGE]
    told = [
        f"{name} has {percent:.1f} % of its branches, {PACKAGE:g} are wanted" for percent, name in sorted(low)
    ]
    if everything.percent < OVERALL:
        told.insert(0, f"overall {everything.percent:.1f} % of the branches, {OVERALL:g} are wanted")
    return told


def table(packages: Mapping[str, Counted]) -> list[str]:
    """A line for each package, and one for all."""
    rows = [*packages.items(), ("overall", whole(packages))]
    width = max(len(name) for name, _ in rows)
    return [
        f"{name:{width}}  branches {each.percent:5.1f} % of {each.branches:5}   "
        f"lines {each.percent_lines:5.1f} % of {each.lines:5}"
        for name, each in rows
    ]


def figures(packages: Mapping[str, Counted]) -> dict[str, Any]:
    """For the record: percent of branches, overall and by package."""
    return {
        "branches": round(whole(packages).percent, 2),
        "lines": round(whole(packages).percent_lines, 2),
        "packages": {name: round(each.percent, 2) for name, each in packages.items()},
    }
