"""What to run for a change: checks of the changed files, types, and the unit tests that the change affects.

Nothing here starts a process or reads a file. Where it is not known which tests a file affects, all do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

from tests.quick.dependencies import distances, is_test

TESTS = "tests/unit/"
AFFECT_ALL = ("pyproject.toml", "uv.lock", "tests/conftest.py", "tests/budget.py")
"""How tests are run, and with what."""
AFFECT_NONE = (
    *(".github/*", ".ci/*", ".ansible-lint", ".yamllint", ".config/*", "LICENSE", "molecule/*"),
    *("tests/lab/*", "tests/verify/*", "tests/faults/*", "tests/bench/*", "tests/fresh/*"),
)
"""What no unit test needs, unless one names it: linters' and CI's own files, and the other stages."""
ALWAYS = ("tests/unit/stages/test_quick.py",)
"""Reads every file of the repository."""
LIMIT_S = 75.0
"""What the unit tests may take; checks and types need the rest of two minutes."""
PROCESSES = 3
AT_ONCE = 2.0
"""How many tests run at a time on two cores; the third process fills the time that the others wait."""
USUAL_S = 1.0
"""What a file takes that SECONDS does not list, its start included."""
_FAR = 1000
ANSIBLE = ("roles/*.yml", "molecule/*.yml", "group_vars/*.yml", "inventory/*.yml")


@dataclass(frozen=True)
class Selection:
    """Files of unit tests to run, and what is left out because it would take too long."""

    files: tuple[str, ...]
    left_out: tuple[str, ...]
    of: int
    why: str
    seconds: float


def choose_tests(
    changed: Sequence[str],
    files: Collection[str],
    found: Mapping[str, set[str]],
    seconds: Mapping[str, float],
) -> Selection:
    """The unit tests that the changed paths affect, nearest first, then shortest; as many as the time allows.

    :param files: every file that there is
    :param found: what files refer to, those that are gone included
    :param seconds: what files of tests take
    """
    tests = sorted(path for path in files if path.startswith(TESTS) and is_collected(path))
    needs = {test: distances(started_with(test, files), found) for test in tests}
    reached = set().union(*needs.values())
    for_all = [f"{path} affects every test" for path in changed if path in AFFECT_ALL]
    for path in changed:
        if path not in reached and not _affects_none(path, files):
            for_all.append(f"what {path} affects is not known")
    affected: dict[str, int] = {test: _FAR for test in tests if for_all or test in ALWAYS}
    for test, steps in needs.items():
        near = [steps[path] + (path != test) for path in changed if path in steps]
        if near:
            affected[test] = min(near)
    why = f"all: {for_all[0]}" if for_all else "those that the change affects"
    return _fit(affected, seconds, len(tests), why)


def _fit(affected: Mapping[str, int], seconds: Mapping[str, float], of: int, why: str) -> Selection:
    def takes(test: str) -> float:
        return seconds.get(test, USUAL_S)

    files: list[str] = []
    left_out: list[str] = []
    sum_s = 0.0
    for test in sorted(affected, key=lambda test: (affected[test], takes(test), test)):
        if (sum_s + takes(test)) / AT_ONCE <= LIMIT_S:
            files.append(test)
            sum_s += takes(test)
        else:
            left_out.append(test)
    return Selection(tuple(files), tuple(left_out), of, why, sum_s / AT_ONCE)


def started_with(test: str, files: Iterable[str]) -> list[str]:
    """What pytest loads for a file of tests: itself, conftest.py and __init__.py of the directories above."""
    directories = [str(parent) for parent in PurePosixPath(test).parents][:-1]
    beside = {f"{directory}/{name}" for directory in directories for name in ("conftest.py", "__init__.py")}
    return [test, *sorted(beside & set(files))]


def is_collected(path: str) -> bool:
    """Whether pytest finds tests in the file."""
    return is_test(path) and not path.endswith("conftest.py")


def _affects_none(path: str, files: Collection[str]) -> bool:
    gone = path not in files and path.startswith(TESTS) and is_collected(path)
    return gone or any(fnmatch(path, pattern) for pattern in AFFECT_NONE)


@dataclass(frozen=True)
class Check:
    """One linter: its words after `python -m`, or a program of the virtual environment."""

    name: str
    command: tuple[str, ...]


def choose_checks(changed: Sequence[str], files: Iterable[str]) -> list[Check]:
    """The linters that the changes need: on changed files, or on all when their own settings changed."""
    there = set(files)
    kept = [path for path in changed if path in there]
    python = [path for path in kept if path.endswith((".py", ".pyi"))]
    yaml = [path for path in kept if path.endswith((".yml", ".yaml"))]
    ansible = [path for path in yaml if _is_ansible(path)]
    workflows = [path for path in yaml if path.startswith(".github/workflows/")]
    tools = {"pyproject.toml", "uv.lock"} & set(changed)
    checks: list[Check] = []
    if python or tools:
        on = (".",) if tools else ("--force-exclude", *python)
        checks += [Check("ruff format", ("ruff", "format", "--check", "--quiet", *on))]
        checks += [Check("ruff check", ("ruff", "check", "--quiet", *on))]
    if yaml or {".yamllint", "uv.lock"} & set(changed):
        on = (".",) if {".yamllint", "uv.lock"} & set(changed) else tuple(yaml)
        checks.append(Check("yamllint", ("yamllint", "--strict", *on)))
    if workflows or "uv.lock" in changed:
        checks.append(Check("actionlint", ("actionlint", *(() if "uv.lock" in changed else workflows))))
    if any(path.endswith((".py", ".pyi")) for path in changed) or tools:
        checks.append(Check("mypy", ("mypy", "--no-error-summary")))
    if any(path.startswith("src/mt5crs_release/") for path in changed) or tools:
        checks.append(
            Check(
                "mypy for Windows",
                ("mypy", "--no-error-summary", "--platform", "win32", "-p", "mt5crs_release"),
            )
        )
    if ansible or {".ansible-lint", "uv.lock"} & set(changed):
        on = () if {".ansible-lint", "uv.lock"} & set(changed) else tuple(ansible)
        checks.append(Check("ansible-lint", ("ansible-lint", "--offline", "-q", *on)))
    return checks


def _is_ansible(path: str) -> bool:
    return ("/" not in path and not path.startswith(".")) or any(
        fnmatch(path, pattern) for pattern in ANSIBLE
    )
