"""`mt5crs deployments`: what was deployed to a fleet, by whom, and how two deployments differ.

On the controller the Hub is asked over SSH (`--inventory`), or the reports kept there are read (`--reports`);
on the Hub itself its own release tool answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from mt5crs.operate.chosen import Chosen

TOOL = "/usr/local/sbin/mt5crs-release"
_TIMEOUT_S = 30


class Source(Protocol):
    """Where records come from."""

    def listed(self) -> list[dict[str, Any]]:
        """Return summaries, newest first."""

    def show(self, name: str) -> dict[str, Any]:
        """Return one record by its id or the beginning of it."""


class Reports:
    """Records that runs have left in a directory of the controller."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def listed(self) -> list[dict[str, Any]]:
        """Return every readable record, newest first."""
        paths = sorted(self.directory.glob("*/record.json"), reverse=True)
        found = []
        for path in paths:
            try:
                found.append(dict(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError):
                click.echo(f"{path} cannot be read; it is left out", err=True)
        return found

    def show(self, name: str) -> dict[str, Any]:
        """Return the record whose id begins with `name`; ClickException when there is not exactly one."""
        records = self.listed()
        fitting = [record for record in records if str(record["id"]).startswith(name)]
        if len(fitting) != 1:
            there = ", ".join(str(record["id"])[:8] for record in records[:8]) or "none"
            raise click.ClickException(
                f"{len(fitting) or 'no'} reports begin with {name!r}; the newest: {there}"
            )
        return fitting[0]


class Hub:
    """Records on the Hub; `inventory` None: this host is the Hub."""

    def __init__(self, inventory: Path | None) -> None:
        self.inventory = inventory

    def listed(self) -> list[dict[str, Any]]:
        """Return a summary of every deployment, newest first."""
        answer = self._ask("list")
        holder = answer.get("holder")
        if holder:
            click.echo(
                f"deploying now: {holder['who']} on {holder['controller']}, phase '{holder['phase']}', "
                f"last heartbeat {holder['age_s']:g} s ago",
                err=True,
            )
        return list(answer["deployments"])

    def show(self, name: str) -> dict[str, Any]:
        """Return one record by its id or the beginning of it."""
        return self._ask("show", name)

    def _ask(self, *words: str) -> dict[str, Any]:
        command = [TOOL, "deployment", *words, "--json"]
        output, error = (
            self._local(command)
            if self.inventory is None
            else Chosen(self.inventory).controller().ask_hub(command)
        )
        try:
            answer = json.loads(output)
        except ValueError:
            raise click.ClickException(
                f"the Hub's release tool gave no answer ({error or 'it is silent'}); is it deployed, and "
                "reachable? --reports reports reads what this controller has kept"
            ) from None
        if "error" in answer:
            raise click.ClickException(f"{answer['error']['message']}; {answer['error']['remedy']}")
        return dict(answer)

    @staticmethod
    def _local(command: Sequence[str]) -> tuple[str, str]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise click.UsageError(
                f"this host has no release tool ({error}); name the fleet with --inventory, or --reports"
            ) from None
        return done.stdout, done.stderr.strip()


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, str]]:
    """What differs between two records: a line per host and service, and per fact of the run."""
    found = []
    for name in ("environment", "action", "engine", "strategy", "outcome", "who"):
        if first.get(name) != second.get(name):
            found.append(_line("", name, first.get(name), second.get(name)))
    before, after = (
        {(entry["host"], entry["service"]): entry for entry in record.get("services") or ()}
        for record in (first, second)
    )
    for key in sorted({*before, *after}):
        host, service = key
        then, now = (_runs(of.get(key)) for of in (before, after))
        if then != now:
            found.append(_line(host, service, then, now))
        brought, brings = (_brought(of.get(key)) for of in (before, after))
        if brought != brings:
            found.append(_line(host, f"{service} changes", brought, brings))
    return found


def _brought(entry: Mapping[str, Any] | None) -> str:
    """Names of the settings and files that a deployment changed; a record never holds their values."""
    return ", ".join(str(name) for name in (entry or {}).get("changes") or ())


def _runs(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "not part of it"
    version = f" ({entry['version']})" if entry.get("version") else ""
    return f"{entry['generation'] or 'nothing'}{version} {entry['state']}"


def _line(host: str, what: str, first: object, second: object) -> dict[str, str]:
    return {"host": host, "what": what, "first": str(first or "-"), "second": str(second or "-")}


def _table(rows: Sequence[Sequence[object]], *heading: str) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(*heading, box=SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell if cell is not None else "") for cell in row))
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)


@click.group()
@click.option("--inventory", type=click.Path(path_type=Path), help="Ask the Hub of this fleet over SSH.")
@click.option(
    "--reports", type=click.Path(path_type=Path), help="Read the reports in this directory instead."
)
@click.pass_context
def deployments(context: click.Context, inventory: Path | None, reports: Path | None) -> None:
    """Show the deployments of a fleet: who, when, what, how they ended.

    Without an option this host is the Hub. Runs that changed nothing are in reports/ only.
    """
    chosen = context.find_root().obj
    if inventory is None and isinstance(chosen, Chosen):
        inventory = chosen.inventory
    context.obj = Reports(reports) if reports is not None else Hub(inventory)


@deployments.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
@click.pass_obj
def list_(source: Source, as_json: bool) -> None:
    """List all deployments, newest first."""
    found = source.listed()
    if as_json:
        click.echo(json.dumps(found))
        return
    rows = [
        (
            str(entry["id"])[:8],
            entry["started"],
            entry.get("action"),
            entry.get("outcome"),
            entry.get("who"),
            entry.get("sentence"),
        )
        for entry in found
    ]
    _table(rows, "id", "started", "action", "outcome", "who", "how it ended")


@deployments.command()
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="The whole record.")
@click.pass_obj
def show(source: Source, id: str, as_json: bool) -> None:
    """Show one deployment by its id or the beginning of it."""
    record = source.show(id)
    if as_json:
        click.echo(json.dumps(record))
        return
    for name in ("id", "outcome", "sentence", "why", "who", "controller", "started", "seconds", "command"):
        if record.get(name):
            click.echo(f"{name:<11}{record[name]}")
    rows = [
        (
            *(entry.get(name) for name in ("host", "service", "generation", "version", "state")),
            _brought(entry),
        )
        for entry in record.get("services") or ()
    ]
    _table(rows, "host", "service", "generation", "version", "state", "changes")
    for failure in record.get("failures") or ():
        click.echo(f"FAILED  {failure['host']}: {failure['step']}: {failure['message']}")


@deployments.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
@click.pass_obj
def diff(source: Source, first: str, second: str, as_json: bool) -> None:
    """Show what differs between two deployments: hosts, generations, versions, names of changed settings."""
    found = differences(source.show(first), source.show(second))
    if as_json:
        click.echo(json.dumps(found))
    elif not found:
        click.echo("no difference")
    else:
        _table([tuple(line.values()) for line in found], "host", "what", first, second)
