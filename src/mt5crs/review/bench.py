"""What the optimiser saves, measured: real HTTP to a provider on this machine that counts calls and tokens.

Three scenarios over twenty files, faults on purpose, a series of commits of a repository, and how long a
whole verdict takes without network and key.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from mt5crs.review import making
from mt5crs.review.budget import Budget
from mt5crs.review.cache import Cache
from mt5crs.review.decision import NOT_ASKED, Policy, decide
from mt5crs.review.external_gate import ExternalGate, Told
from mt5crs.review.history import Run, totals
from mt5crs.review.local_gate import LocalResult
from mt5crs.review.model import ReviewError
from mt5crs.review.record import digest
from mt5crs.review.rehearsal import ProviderServer
from mt5crs.review.tree import File, Tree, changed, commits, tree_of

ENOUGH: Final = 100_000.0
"""Dollars: what the budget does is not measured here."""
_FAR: Final = 100
BRANCH: Final = 5
"""Commits of a series that is reviewed again after each of them."""
_KINDS: Final = (("src/mt5crs/gateway", 8), ("templates/env", 5), ("docs", 7))
"""Directory and number of files of the twenty: strong, medium and cheap."""


class Figure(NamedTuple):
    """A measured value and what it should be at least, or at most."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether it keeps its targets."""
        low = self.at_least is not None and self.value < self.at_least
        return not low and not (self.at_most is not None and self.value > self.at_most)

    def line(self) -> str:
        """One row of a table."""
        target = f">= {self.at_least:g}" if self.at_least is not None else ""
        target = f"<= {self.at_most:g}" if self.at_most is not None else target
        verdict = "" if not target else "OK" if self.good else "MISSED"
        row = f"{self.name:58} {self.value:9.2f} {self.unit:4} {target:>8} {verdict:6}  {self.note}"
        return row.rstrip()


def twenty(change: int | None = None) -> list[File]:
    """Twenty files of three classes, of about a hundred lines each; one of them may be changed."""
    names = [f"{place}/n{number:02}.py" for place, many in _KINDS for number in range(many)]
    text = "".join(
        f"def step_{line}(value: int) -> int:\n    return value + {line}\n\n" for line in range(35)
    )
    return [
        File(name, "text", f"KIND = {number}\n{text}{'CHANGED = 1' if number == change else ''}\n", None)
        for number, name in enumerate(names)
    ]


def scenarios(thinks_s: float) -> list[Figure]:
    """First review of twenty files, the same again, one of them changed; the provider thinks so long."""
    with _provider(thinks_s) as (server, ask):
        began = time.monotonic()
        alone = ask(twenty(), "alone", optimiser=False)
        alone_s = time.monotonic() - began
        began = time.monotonic()
        first = ask(twenty(), "one")
        first_s = time.monotonic() - began
        calls = server.calls
        began = time.monotonic()
        again = ask(twenty(), "one")
        again_s = time.monotonic() - began
        repeated = server.calls - calls
        one = ask(twenty(change=3), "one")
        after = server.calls - calls
    price, cheap = alone.figures.price, first.figures.price
    note = f"the provider takes {thinks_s:g} s a call"
    fewer = 100 * (1 - repeated / calls) if calls else 0.0
    return [
        Figure("first review: calls", first.figures.api_calls, "", note=f"{alone.figures.api_calls} without"),
        Figure("first review: files in a call, of those that fit", 100 * first.figures.batch_efficiency, "%"),
        Figure("first review: saved", 100 * (1 - cheap / price), "%", 50, note="batches and routes alone"),
        Figure("first review: time", first_s, "s", note=f"{alone_s:.2f} s without; {note}"),
        Figure("unchanged tree: fewer calls", fewer, "%", 90),
        Figure("unchanged tree: from the cache", 100 * again.figures.cache_hit_rate, "%", 94),
        Figure("unchanged tree: verdict is the same, byte by byte", _same(first, again), "", 1),
        Figure("unchanged tree: time, of a review without", 100 * again_s / alone_s, "%", None, 5, note),
        Figure("one of twenty changed: from the cache", 100 * one.figures.cache_hit_rate, "%", 90),
        Figure("one of twenty changed: calls", after, "", None, 1),
        Figure("one of twenty changed: saved", 100 * (1 - one.figures.price / price), "%", 90),
    ]


def faults(timeout_s: float = 1.0) -> list[Figure]:
    """A provider that answers 429 and 500, is slow, and cuts the line; and one that does nothing else."""
    kinds = ("429", "500", "slow", "cut")
    with _provider(0.0, timeout_s=timeout_s, backoff_s=0.01) as (server, ask):
        server.faults.extend(("429", "500", "", "slow", "", "cut"))  # as long as attempts last
        told = ask(twenty(), "passing")
        bad = 0
        for kind in kinds:
            server.always = kind
            bad += ask(twenty()[:1], kind, attempts=1).result.state != "not_asked"
        server.always = ""
        well = ask(twenty()[:1], "500")
    answered = told.figures.asked_files / told.figures.files
    return [
        Figure("429, 500, slow, cut, once each: files answered about", 100 * answered, "%", 100),
        Figure("429, 500, slow, cut, for ever: reviews that passed", bad, "", None, 0),
        Figure("and afterwards: files answered about", 100 * well.figures.asked_files, "%", 100),
    ]


def replay(repository: Path, count: int) -> list[Figure]:
    """The last commits of a repository, reviewed one after the other.

    :raises ReviewError: it has no two commits
    """
    names = commits(repository, count + 1)
    if len(names) < 2:
        raise ReviewError(f"{repository} has no two commits to replay; name another repository with --tree")
    trees = [tree_of(repository, name) for name in reversed(names)]
    steps = list(itertools.pairwise(trees))
    with _provider(0.0) as (_, ask):
        # What changed, once: no file is seen twice unless its text is. Then a branch: all that differs from
        # where it began, after each commit. Then releases: the whole tree each time.
        change = [ask(changed(tree, before), "change") for before, tree in steps]
        branch = [ask(changed(tree, trees[_begin(at)]), f"branch{_begin(at)}") for at, tree in _after(trees)]
        whole = [ask(changed(tree, None), "whole") for tree in trees]
    made = f"{len(steps)} commits"
    saved, in_branches, everything = (totals(map(_run, told)) for told in (change, branch, whole[1:]))
    each = [told.figures.cost_reduction_rate for told in change if told.figures.price_without]
    half = sum(rate >= 0.5 for rate in each) / max(1, len(each))
    return [
        Figure("each change alone: saved", _percent(saved.cost_reduction_rate), "%", 50, note=made),
        Figure("each change alone: reviews that saved a half", 100 * half, "%", note=f"of {len(each)}"),
        Figure(
            f"branches of {BRANCH} commits: from the cache",
            _percent(in_branches.cache_hit_rate),
            "%",
            40,
            note="asked for: 40 to 60",
        ),
        Figure(f"branches of {BRANCH} commits: saved", _percent(in_branches.cost_reduction_rate), "%", 50),
        Figure(
            "whole tree each time: from the cache", _percent(everything.cache_hit_rate), "%", 94, note=made
        ),
        Figure("whole tree each time: fewer calls", _fewer(everything.api_calls, everything.files), "%", 90),
        Figure("whole tree each time: saved", _percent(everything.cost_reduction_rate), "%", 90),
        Figure(
            "whole tree, the first time: price",
            whole[0].figures.price,
            "$",
            note=f"{whole[0].figures.price_without:.2f} without",
        ),
    ]


def verdict_s(repository: Path, lines: int) -> list[Figure]:
    """Seconds of a whole verdict, without network and key, of the last change of so many lines.

    :raises ReviewError: the repository has not changed so much
    """
    tree = tree_of(repository, "HEAD")
    bases = (tree_of(repository, name) for name in commits(repository, _FAR)[1:])
    base = next((each for each in bases if making.lines_of(changed(tree, each)) >= lines), None)
    if base is None:
        raise ReviewError(f"{repository} has not changed by {lines} lines in {_FAR} commits; ask for fewer")
    with tempfile.TemporaryDirectory(prefix="mt5crs-bench-") as scratch:
        made = making.make(tree, base, Policy(external_required=False), Path(scratch))
    note = f"{made.lines} lines; caches of the programs empty; {made.decision.result}"
    return [Figure("whole verdict without network and key", made.seconds, "s", None, 60, note)]


Ask = Callable[..., Told]


class _provider:  # noqa: N801  (reads as a function)
    """A provider and a way to ask it: files, name of cache and budget, settings that differ."""

    def __init__(self, thinks_s: float, **settings: Any) -> None:
        self._settings = settings
        self._server = ProviderServer()
        self._server.thinks_s = thinks_s
        self._directory = tempfile.TemporaryDirectory(prefix="mt5crs-bench-")
        self._scratch = Path(self._directory.name)

    def __enter__(self) -> tuple[ProviderServer, Ask]:
        return self._server.__enter__(), self._ask

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
        self._directory.cleanup()

    def _ask(self, files: Sequence[File], name: str, **others: Any) -> Told:
        money = {"budget_day": ENOUGH, "budget_review": ENOUGH}
        settings = self._server.settings(**{**money, **self._settings, **others})
        cache = Cache(self._scratch / f"{name}.sqlite", 1_000_000_000)
        budget = Budget(self._scratch / "budget.sqlite", ENOUGH, ENOUGH)
        return ExternalGate(settings, cache, budget, version("mt5crs")).ask(files)


def _same(first: Told, again: Told) -> bool:
    local, policy = LocalResult(findings=[], programs=[]), Policy(external_required=False)
    decisions = [decide("tree", None, {}, local, told.result, policy) for told in (first, again)]
    nothing = decide("tree", None, {}, local, NOT_ASKED, policy)
    return digest(decisions[0]) == digest(decisions[1]) != digest(nothing)


def _begin(at: int) -> int:
    """The tree that a branch began at, for the tree with this number."""
    return (at - 1) // BRANCH * BRANCH


def _after(trees: Sequence[Tree]) -> list[tuple[int, Tree]]:
    return list(enumerate(trees))[1:]


def _run(told: Told) -> Run:
    good = told.figures.api_calls - told.figures.failed_calls
    return Run(
        at=0.0,
        tree="",
        result="",
        external=told.result.state,
        mode=told.result.mode,
        seconds=0.0,
        places=good * 5,
        figures=told.figures,
        reviewer_down=told.reviewer_down,
    )


def _fewer(calls: int, files: int) -> float:
    return 100 * (1 - calls / files) if files else 0.0


def _percent(rate: float | None) -> float:
    return 0.0 if rate is None else 100 * rate
