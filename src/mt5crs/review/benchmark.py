"""`mt5crs review bench`: the figures of the optimiser beside their targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from mt5crs.operate.report import one_line_errors
from mt5crs.review.bench import Figure, faults, replay, scenarios, verdict_s
from mt5crs.review.model import ReviewError


@click.command()
@click.option(
    "--tree",
    "repository",
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The repository whose commits are replayed (default: this directory).",
)
@click.option("--commits", default=0, type=click.IntRange(0, 1000), help="Replay its last N commits.")
@click.option(
    "--lines", default=0, type=click.IntRange(0, 100_000), help="Time gate 1 on its last change of N lines."
)
@click.option(
    "--thinks",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 60),
    help="Seconds that the provider takes for a call.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(repository: Path, commits: int, lines: int, thinks: float, as_json: bool) -> None:
    """Measure what the optimiser saves, against a provider on this machine. Nothing is sent elsewhere.

    Exit status 0: every target is kept; 1: one is missed.
    """

    def measured() -> Iterator[Figure]:
        yield from scenarios(thinks)
        yield from faults()
        if commits:
            yield from replay(repository, commits)
        if lines:
            yield from verdict_s(repository, lines)

    made = []
    with one_line_errors(ReviewError, OSError):
        for figure in measured():
            made.append(figure)
            if not as_json:
                click.echo(figure.line())
    if as_json:
        told = [{**figure._asdict(), "good": figure.good} for figure in made]
        click.echo(msgspec.json.format(msgspec.json.encode(told)).decode())
    raise SystemExit(0 if all(figure.good for figure in made) else 1)
