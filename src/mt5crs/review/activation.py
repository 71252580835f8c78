"""`mt5crs review activate`: the optimiser is switched on when it was seen to work, and not before.

It is seen at work by a dry run: the gate as `mt5crs review run` makes it asks a provider on this machine, and
the interpreter says which functions ran. Nothing is sent elsewhere.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import click
import msgspec

import mt5crs.review
from mt5crs.operate.report import Report, Skipped, exit_status, one_line_errors, show
from mt5crs.review import bench, cache, calling, making, programs, switch, units
from mt5crs.review.asking import worst_price
from mt5crs.review.budget import Budget, BudgetError
from mt5crs.review.external_gate import Told
from mt5crs.review.model import ReviewError
from mt5crs.review.rehearsal import KEY, ProviderServer
from mt5crs.review.units import CHARACTERS_PER_TOKEN
from mt5crs.settings.review import ReviewSettings
from mt5crs.settings.schema import SettingsError, load

SEEN: Final[dict[str, tuple[Callable[..., Any], ...]]] = {
    "cache": (cache.key, cache.Cache.get, cache.Cache.put, cache.Cache.moved),
    "batcher": (units.batches,),
    "router": (units.route,),
    "budget": (Budget.reserve, Budget.charge),
    "calls": (calling.call,),
}
"""What the dry run must have gone through."""


class NotActiveError(Exception):
    """A check that failed; the text says what and what to do."""


@click.command()
@click.option("--off", is_flag=True, help="Switch the optimiser off at once, without a check.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def activate(off: bool, as_json: bool) -> None:
    """Check cache, batcher, router, key and budget; only then switch the optimiser on.

    Exit status 0: it is on (with --off: it is off); 1: a check failed, and nothing was changed.
    """
    with one_line_errors(ReviewError, OSError):
        directory, tool = making.cache_directory(), version("mt5crs")
        if off:
            switch.turn(directory, on=False, tool=tool)
            click.echo("the optimiser is off: every file is asked about alone, by the strong model")
            return
    with one_line_errors(SettingsError, status=78):
        settings = load(ReviewSettings)
    report = checked(settings, directory)
    before = switch.why_off(directory, tool)
    if report.verdict != "FAIL":
        with one_line_errors(OSError):
            switch.turn(directory, on=True, tool=tool)
        report.figures["optimiser"] = "on"
    else:
        report.figures["optimiser"] = f"as before: {'off' if before else 'on'}"
    show(report, as_json=as_json)
    raise SystemExit(exit_status(report))


def checked(settings: ReviewSettings, directory: Path, *, with_programs: bool = True) -> Report:
    """All checks; each fails by itself. `with_programs`: those of gate 1 must be here, as not on the Hub."""
    report = Report(title="review optimiser")
    expected = (NotActiveError, ReviewError, BudgetError, OSError)
    report.run("modules", lambda: _modules(with_programs), expected)
    report.run("reviewer and key", lambda: _reviewer(settings), expected)
    report.run("fall-back", lambda: _fallback(settings), expected)
    report.run("budget", lambda: _budget(settings, directory), expected)
    report.run("cache", lambda: _cache(settings, directory), expected)
    report.run("dry run", lambda: dry_run(settings), (*expected, Exception))
    return report


def _modules(with_programs: bool) -> str:
    names = [f"{mt5crs.review.__name__}.{each.name}" for each in pkgutil.iter_modules(mt5crs.review.__path__)]
    for name in [*names, "httpx"]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise NotActiveError(
                f"{name} cannot be imported ({error}); install it with `make setup`"
            ) from None
    if not with_programs:
        return f"{len(names)} modules and httpx"
    missing = [each.name for each in programs.PROGRAMS if programs.where(each.name) is None]
    if missing:
        raise NotActiveError(f"{', '.join(missing)} not beside this Python; install with `make setup`")
    return f"{len(names)} modules, httpx and {len(programs.PROGRAMS)} programs"


def _reviewer(settings: ReviewSettings) -> str:
    if settings.reviewer is None:
        raise NotActiveError("REVIEW_REVIEWER is not set; name provider, endpoint and models in it")
    if not settings.api_key:
        raise NotActiveError("REVIEW_API_KEY is not set; take it from the vault")
    if not settings.optimiser:
        raise NotActiveError("REVIEW_OPTIMISER is false, which counts for more than the switch; unset it")
    return f"{settings.reviewer.provider} at {settings.reviewer.endpoint}; a review shows if it takes the key"


def _fallback(settings: ReviewSettings) -> str:
    if settings.fallback is None:
        raise Skipped("none is set: while the reviewer is down only the cache answers")
    if not settings.fallback_api_key:
        raise NotActiveError("REVIEW_FALLBACK is set and REVIEW_FALLBACK_API_KEY is not; set both or none")
    return f"{settings.fallback.provider} at {settings.fallback.endpoint}"


def _budget(settings: ReviewSettings, directory: Path) -> str:
    if settings.reviewer is None:
        raise NotActiveError("without a reviewer nothing is known of prices")
    size = settings.batch_tokens * CHARACTERS_PER_TOKEN
    worst = worst_price(settings.reviewer.strong, size, settings.reply_tokens)
    left = making.budget(settings, directory).left()
    for name, money in (
        ("REVIEW_BUDGET_REVIEW", settings.budget_review),
        ("REVIEW_BUDGET_DAY", settings.budget_day),
    ):
        if money < worst:
            raise NotActiveError(
                f"one full call may cost ${worst:.2f}, and {name} is ${money:g}: raise it, or lower "
                "REVIEW_BATCH_TOKENS or REVIEW_REPLY_TOKENS"
            )
    return f"${left:.2f} left today; a full call costs ${worst:.2f} at most"


def _cache(settings: ReviewSettings, directory: Path) -> str:
    if settings.cache_ttl_h <= 0 or settings.cache_mb <= 0:
        raise NotActiveError("REVIEW_CACHE_TTL_H or REVIEW_CACHE_MB is 0, so that nothing is kept; raise it")
    opened = making.cache(settings, directory)
    opened.get("")
    if opened.damaged:
        raise NotActiveError(
            f"the cache in {directory} cannot be used; look at its mode and at the room on its disk"
        )
    return f"{directory}, up to {settings.cache_mb:g} MB, {settings.cache_ttl_h:g} h"


def dry_run(settings: ReviewSettings) -> str:
    """Review twenty files twice and once more with a change; say what was seen.

    :raises NotActiveError: the gate did not go through cache, batcher and router, or they did not work
    """
    provider = settings.reviewer.provider if settings.reviewer is not None else "anthropic"
    with ProviderServer() as server, tempfile.TemporaryDirectory(prefix="mt5crs-review-") as scratch:
        here = server.settings(provider)
        rehearsed = msgspec.structs.replace(
            settings,
            reviewer=here.reviewer,
            api_key=KEY,
            fallback=None,
            fallback_api_key="",
            optimiser=True,
            budget_day=bench.ENOUGH,
            budget_review=bench.ENOUGH,
        )
        switch.turn(Path(scratch), on=True, tool=version("mt5crs"))

        def review(change: int | None = None) -> tuple[Told, int]:
            before = server.calls
            told = making.external_gate(rehearsed, Path(scratch)).ask(bench.twenty(change))
            return told, server.calls - before

        with _traced() as ran:
            first, calls = review()
        missing = [
            f"{part} ({function.__qualname__})"
            for part, functions in SEEN.items()
            for function in functions
            if function.__code__ not in ran
        ]
        again, repeated = review()
        one, changed = review(change=3)
    if missing:
        raise NotActiveError(
            f"the gate did not go through {', '.join(missing)}; this installation is not whole"
        )
    wrong = [
        sentence
        for bad, sentence in (
            (bool(first.without), first.without),
            (first.result.state != "passed", "the reviewer of the dry run was not asked about everything"),
            (settings.batch_files > 1 and calls >= 20, "the batcher made a call of each file"),
            (
                set(server.models) != {"large", "middle", "small"},
                "the router asked one model about all classes",
            ),
            (repeated > 0, f"an unchanged tree took {repeated} calls, not none"),
            (again.result != first.result, "the cache answered something else than the reviewer"),
            (changed != 1, f"one changed file took {changed} calls, not one"),
            (one.figures.cached_files != 19, f"{one.figures.cached_files} of 19 files came from the cache"),
        )
        if bad
    ]
    if wrong:
        raise NotActiveError("; ".join(wrong))
    return f"20 files in {calls} calls, again in none, one change in one; went through {', '.join(SEEN)}"


@contextmanager
def _traced() -> Iterator[set[CodeType]]:
    """The code of every function that is called meanwhile, here or by threads that begin, as the interpreter
    tells it.
    """
    ran: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            ran.add(frame.f_code)

    before, others = sys.getprofile(), threading.getprofile()
    sys.setprofile(note)
    threading.setprofile(note)
    try:
        yield ran
    finally:
        sys.setprofile(before)
        threading.setprofile(others)
