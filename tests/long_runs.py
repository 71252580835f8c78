"""What only the long targets run, and why: `@pytest.mark.slow(reason="…")`, listed by `make long-list`.

A pytest plugin. A test is left out of every run only where it repeats what another one tries; the reason says
which. Without a reason nothing is collected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

MANY = 50
OTHER_ENGINE = "the other engine is tried in every run; what decides is the same code"
MOLECULE = "a Molecule scenario of every run does the same"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make long-list` ask."""
    parser.addoption("--long-list", action="store_true", help="list what only the long targets run, and why")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a test that is left out without a reason; with `--long-list` tell the reasons, run nothing."""
    reasons = {item.nodeid: mark.kwargs.get("reason") for item in items for mark in item.iter_markers("slow")}
    missing = [name for name, reason in reasons.items() if not reason]
    if missing:
        raise pytest.UsageError(f"say why every run may leave it out, slow(reason=…): {', '.join(missing)}")
    if config.getoption("--long-list"):
        by_reason: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            by_reason.setdefault(str(reason), []).append(name)
        for reason, names in by_reason.items():
            print(f"\n{reason}:", *shown(names), sep="\n  ")
        items.clear()


def shown(names: Sequence[str]) -> Iterator[str]:
    """The tests by name; one with very many cases once, with their number."""
    cases = Counter(name.partition("[")[0] for name in names)
    told = set()
    for name in names:
        test = name.partition("[")[0]
        if cases[test] <= MANY:
            yield name
        elif test not in told:
            told.add(test)
            yield f"{test} ({cases[test]} cases)"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A list is no failed run, although no test ran."""
    if session.config.getoption("--long-list") and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
