"""How long the tests of a run took, shown at its end: median, worst, and every test over the budget.

A pytest plugin; it only tells, a run never fails because of it. A test's time is all that it was waited for,
its set-up and tear-down too: the first test that needs something shared pays for setting it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import pytest

BUDGET_S = 30.0
"""What a test may take; stages on a lab have another one (Makefile)."""


@dataclass
class Phases:
    """Seconds of one test."""

    setup: float = 0.0
    call: float = 0.0
    teardown: float = 0.0

    @property
    def whole(self) -> float:
        """All of them."""
        return self.setup + self.call + self.teardown


@dataclass(eq=False)
class Durations:
    """Collects what each test took. Reports of pytest-xdist's processes arrive here too."""

    tests: dict[str, Phases] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of one test; a test that is skipped before it starts took nothing."""
        if report.skipped and report.when == "setup":
            return
        if report.when == "setup" or report.nodeid in self.tests:
            phases = self.tests.setdefault(report.nodeid, Phases())
            setattr(phases, report.when, report.duration)


def summary(tests: Mapping[str, Phases], budget_s: float) -> list[str]:
    """The lines to show, longest test first; none when nothing ran."""
    if not tests:
        return []
    seconds = [phases.whole for phases in tests.values()]
    over = {name: phases for name, phases in tests.items() if phases.whole > budget_s}
    found = f"{len(over) or 'none'} over the budget of {budget_s:g} s{':' if over else ''}"
    lines = [f"{len(tests)} tests: median {median(seconds):.2f} s, worst {max(seconds):.1f} s; {found}"]
    for name, phases in sorted(over.items(), key=lambda item: -item[1].whole):
        beside = phases.setup + phases.teardown
        note = f" ({beside:.1f} s of it set-up and tear-down)" if beside > phases.call else ""
        lines.append(f"{phases.whole:7.1f} s  {name}{note}")
    return lines


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a stage say what its tests may take."""
    parser.addoption(
        "--budget",
        type=float,
        default=BUDGET_S,
        metavar="SECONDS",
        help="tests that take longer are listed at the end of the run (default: %(default)g)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect in the process that shows the summary."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(), "durations-of-tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the summary."""
    collected = config.pluginmanager.get_plugin("durations-of-tests")
    lines = summary(collected.tests, config.getoption("budget")) if isinstance(collected, Durations) else []
    if lines:
        terminalreporter.section("time of tests")
        for line in lines:
            terminalreporter.line(line)
