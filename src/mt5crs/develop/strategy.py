"""`mt5crs strategy`: a new project, a check, a run on this machine, a bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from mt5crs.develop import project as projects
from mt5crs.develop import simulation
from mt5crs.develop.project import Project, ProjectError
from mt5crs.local_fleet.rehearsal import RehearsalError
from mt5crs.operate.report import Report, exit_status, one_line_errors, show

_CONSTRUCTOR_S = 10.0
"""Most that import and constructor may take together; on a host a start may take 60 s."""
_START_S = 60.0
"""Most that Python may take until then, on a busy machine."""

_name = click.argument("name")
_directory = click.option(
    "--in",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("strategies"),
    show_default=True,
    help="Folder with the definitions, <name>.yml.",
)
_options = click.option("--options", default="{}", help="The strategy's options, a JSON object.")
_symbol = click.option("--symbol", default="EURUSD", show_default=True)
_volume = click.option("--volume", default=0.01, show_default=True, help="Volume of one order, in lots.")
_interval = click.option(
    "--interval", default=1.0, show_default=True, help="Seconds between two calls of on_timer."
)


@click.group()
def strategy() -> None:
    """Write a strategy of your own: new, check, run, pack. Needs no host."""


@strategy.command()
@_name
@_directory
def new(name: str, directory: Path) -> None:
    """Make a small project with a test: a definition, a pyproject.toml, a class."""
    with one_line_errors(ProjectError, OSError):
        for path in projects.make(name, directory):
            click.echo(path)
    click.echo(f"next: mt5crs strategy check {name}")


@strategy.command()
@_name
@_directory
@_options
@_symbol
@_volume
@_interval
@click.option("--calls", default=200, show_default=True, help="How often on_timer is called.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    name: str,
    directory: Path,
    options: str,
    symbol: str,
    volume: float,
    interval: float,
    calls: int,
    *,
    as_json: bool,
) -> None:
    """Try it in a process that cannot trade: imports, options, forbidden calls, time of each callback.

    Orders go to a simulated broker inside that process. Exit status 1 when something is wrong.
    """
    with one_line_errors(ProjectError):
        found = projects.find(name, directory)
        asked = {
            "strategy": found.loads,
            "options": _parsed(options),
            "symbol": symbol,
            "volume": volume,
            "interval_s": interval,
            "calls": calls,
        }
    report = tried(found, asked)
    show(report, as_json=as_json)
    raise SystemExit(exit_status(report))


@strategy.command()
@_name
@_directory
@click.option("--sim", is_flag=True, required=True, help="With the simulated broker; there is no other yet.")
@_options
@_symbol
@_volume
@_interval
@click.option("--seconds", default=60.0, show_default=True, help="How long; Ctrl-C ends it earlier.")
@click.option("--seed", default=1, show_default=True, help="Of the generated quotes: same seed, same quotes.")
@click.option(
    "--quotes",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Recorded quotes instead: CSV with time_msc, bid, ask.",
)
@click.option("--speed", default=1.0, show_default=True, help="How much faster recorded quotes come.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def run(
    name: str,
    directory: Path,
    options: str,
    symbol: str,
    volume: float,
    interval: float,
    seconds: float,
    seed: int,
    quotes: Path | None,
    speed: float,
    *,
    sim: bool,  # noqa: ARG001  (said on purpose: nothing real is traded)
    as_json: bool,
) -> None:
    """Run gateway, reconciler and the strategy on this machine; ends with profit and loss, and a plot."""
    with one_line_errors(ProjectError, RehearsalError):
        outcome = simulation.run(
            projects.find(name, directory),
            options=_parsed(options),
            symbol=symbol,
            volume=volume,
            interval_s=interval,
            seconds=seconds,
            seed=seed,
            quotes=simulation.recorded(quotes) if quotes else None,
            speed=speed,
            say=lambda text: click.echo(text, err=True),
        )
    if as_json:
        click.echo(msgspec.json.encode(outcome).decode())
        return
    first = "none" if outcome.first_trade_s is None else f"after {outcome.first_trade_s:.1f} s"
    click.echo(f"{outcome.deals} deals in {outcome.seconds:.0f} s ({outcome.lots:g} lots), the first {first}")
    click.echo(
        f"{outcome.closed} closed, {outcome.won} of them with a profit; realised {outcome.realised:+.2f}"
    )
    click.echo(f"equity {outcome.profit:+.2f}, open positions included:")
    for line in simulation.plot(outcome.equity):
        click.echo(line)


@strategy.command()
@_name
@_directory
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("dist"), show_default=True, help="Where it goes."
)
@click.option("--lock", is_flag=True, help="First pin what it needs, with hashes and the core's versions.")
def pack(name: str, directory: Path, out: Path, *, lock: bool) -> None:
    """Build its signed bundle, as `make strategy-bundle` does."""
    from deploy.bundle import strategy_bundle

    status = strategy_bundle.run(name, out, lock=True, directory=directory) if lock else 0
    raise SystemExit(status or strategy_bundle.run(name, out, lock=False, directory=directory))


def tried(project: Project, asked: dict[str, Any]) -> Report:
    """What a trial in a process of its own found."""
    report = Report(title=f"strategy {project.name} ({project.loads})")
    with tempfile.TemporaryDirectory(prefix="mt5crs-check-") as directory, project.data_directory() as data:
        results = Path(directory) / "results"
        results.touch()
        document = json.dumps({**asked, "data_dir": data, "results": str(results)})
        limit_s = _CONSTRUCTOR_S + 2 * asked["calls"] * asked["interval_s"]
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment |= {"PYTHONPATH": simulation.python_path(project), "PYTHONDONTWRITEBYTECODE": "1"}
        said, hung = _ran(document, environment, directory, results, limit_s)
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    _judged(report, lines, said, asked, hung=hung)
    return report


def _ran(
    document: str, environment: dict[str, str], directory: str, results: Path, limit_s: float
) -> tuple[str, bool]:
    """What it printed, and whether it had to be ended: soon in the constructor, later after that."""
    command = [sys.executable, "-m", "mt5crs.develop.trial", document]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            try:
                _wait_for_begin(process, results)
                said, _ = process.communicate(timeout=_CONSTRUCTOR_S)
            except subprocess.TimeoutExpired:
                if '"on_start"' not in results.read_text(encoding="utf-8"):
                    raise
                said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            return said, True
    return said, False


def _wait_for_begin(process: subprocess.Popen[str], results: Path) -> None:
    """Until it comes to the strategy's own code: Python's start on a busy machine is none of its time."""
    end = time.monotonic() + _START_S
    while not results.stat().st_size and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def _judged(
    report: Report, lines: list[dict[str, Any]], said: str, asked: dict[str, Any], *, hung: bool
) -> None:
    phases = [line["phase"] for line in lines if "phase" in line]
    failed = next((line["failed"] for line in lines if "failed" in line), None)
    if hung:
        failed = "it hangs: nothing came of it in time"
    elif not any("done" in line or "failed" in line for line in lines):
        failed = f"its process ended without a word: {said.strip()[-300:] or 'nothing printed'}"
    for phase in phases:
        last = phase == phases[-1]
        report.add(phase, "FAIL" if failed and last else "PASS", (failed or "") if last else "")
    if failed and not phases:
        report.add("start", "FAIL", failed)
    forbidden = list(dict.fromkeys(text for line in lines for text in line.get("forbidden", ())))
    if forbidden or not failed:
        report.add("forbidden calls", "FAIL" if forbidden else "PASS", "; ".join(forbidden) or "none")
    for line in lines:
        if "times" not in line:
            continue
        for name, seconds in line["times"].items():
            longest = max(seconds)
            middle = sorted(seconds)[len(seconds) // 2]
            detail = f"{len(seconds)} calls, median {middle * 1000:.2f} ms, longest {longest * 1000:.2f} ms"
            slow = longest > asked["interval_s"]
            report.add(
                f"time of {name}",
                "FAIL" if slow else "PASS",
                f"{detail}; longer than the {asked['interval_s']:g} s between two calls" if slow else detail,
                longest * 1000,
            )
        report.figures["order errors that it let pass"] = line["errors"]


def _parsed(options: str) -> dict[str, Any]:
    try:
        found = json.loads(options)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProjectError(f'--options is {options!r}, expected a JSON object such as {{"level": 1.09}}')
    return found
