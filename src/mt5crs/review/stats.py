"""`mt5crs review stats`: what reviews have cost, from the record of runs."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

import click
import msgspec

from mt5crs.operate.report import one_line_errors
from mt5crs.review import making
from mt5crs.review.budget import BudgetError
from mt5crs.review.history import FILE, History, Totals, totals
from mt5crs.review.model import ReviewError
from mt5crs.settings.review import ReviewSettings
from mt5crs.settings.schema import SettingsError, load

_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def since_when(text: str, now: float) -> float:
    """`7d` (m, h, d, w) before now, or a day or time (UTC) as ISO 8601 writes it, in Unix time.

    :raises ReviewError: it is neither
    """
    ago = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if ago:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ReviewError(f"{text!r} is no time; write 7d, 24h or 2026-01-31") from None
    return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()


@click.command()
@click.option("--since", metavar="WHEN", help="Runs since then: 7d, 24h, 2026-01-31 (default: all).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats(since: str | None, as_json: bool) -> None:
    """Show what reviews have cost, and what the optimiser has saved."""
    with one_line_errors(SettingsError, status=78), one_line_errors(ReviewError, OSError):
        settings, directory = load(ReviewSettings), making.cache_directory()
        begin = since_when(since, time.time()) if since else 0.0
        sums = totals(History(directory / FILE).runs(begin))
    try:
        left: float | None = round(making.budget(settings, directory).left(), 6)
    except BudgetError:
        left = None
    if as_json:
        made = {**msgspec.to_builtins(sums), "budget_left": left, "budget_day": settings.budget_day}
        click.echo(msgspec.json.format(msgspec.json.encode(made, order="sorted")).decode())
    else:
        click.echo("\n".join(lines(sums, left, settings.budget_day, since)))


def lines(sums: Totals, left: float | None, budget_day: float, since: str | None) -> list[str]:
    """The sums for people."""
    when = f" since {since}" if since else ""
    told = [f"{sums.runs} reviews{when}, {sums.passed} passed"]
    told.append(
        f"  calls: {sums.api_calls}, {sums.failed_calls} without an answer; files in a call, of those that "
        f"fit: {_percent(sums.batch_efficiency)}"
    )
    told.append(
        f"  files: {sums.files}, {sums.cached_files} from the cache ({_percent(sums.cache_hit_rate)}), "
        f"{sums.asked_files} asked about"
    )
    told.append(f"  tokens: {sums.tokens_in} in, {sums.tokens_out} out")
    unknown = f" and up to ${sums.price_unknown:.4f} of calls that broke" if sums.price_unknown else ""
    told.append(
        f"  price: ${sums.price:.4f}{unknown}; each file alone to the strong model: "
        f"${sums.price_without:.4f}; saved {_percent(sums.cost_reduction_rate)}"
    )
    known = {None: "has not been asked", True: "was down when it was last asked", False: "answers"}
    told.append(f"  reviewer: {known[sums.reviewer_down]}")
    money = "not known" if left is None else f"${left:.2f}"
    told.append(f"  budget left today: {money} of ${budget_day:g}")
    return told


def _percent(rate: float | None) -> str:
    return "nothing to tell" if rate is None else f"{rate * 100:.1f} %"
