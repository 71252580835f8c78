"""What people see of a run: one line per phase, a table at the end, what to do next; and what is kept of it.

Every run leaves `reports/<UTC>-<short id>/record.json` and `report.html` beside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.fleet.vault_password import PROJECT
from deploy.reporting import kept, next_command
from deploy.reporting.report_page import page
from deploy.rollout.record import Failure, Phase, Rollout, sorted_results
from deploy.rollout.transfers import summary
from mt5crs.foreign_text import shown

REPORTS = PROJECT / "reports"
JOURNAL_LINES = 12


def phase_line(phase: Phase) -> str:
    """`stage        3 hosts   2 changed    4.1 s`."""
    hosts = f"{phase.hosts} host{'s' if phase.hosts != 1 else ''}"
    if phase.skipped:
        what = "not begun"
    elif phase.failed:
        what = f"{phase.failed} failed"
    else:
        what = f"{phase.changed} changed" if phase.changed else "unchanged"
    return f"{phase.name:<32} {hosts:>9}   {what:<12} {phase.seconds:>7.1f} s"


def table(rollout: Rollout) -> str:
    """Host, service, generation, state, seconds; empty when no service was looked at."""
    rows = [
        (result.host, result.service, result.generation or "-", result.state, f"{result.seconds:.1f}")
        for result in sorted_results(rollout.results.values())
    ]
    return columns(("host", "service", "generation", "state", "seconds"), rows) if rows else ""


def columns(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text columns as wide as their widest cell, the heading underlined."""
    rows = [[shown(str(cell)) for cell in row] for row in rows]
    widths = [max(len(str(row[i])) for row in (heading, *rows)) for i in range(len(heading))]
    lines = [heading, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def failure_text(failure: Failure) -> str:
    """Which host, which step, why, the last lines of the service's journal, and what to do."""
    lines = [f"FAILED  {failure.host}: {failure.step}", f"  why     {_indented(failure.message)}"]
    if failure.journal:
        lines.append("  journal")
        lines += [f"    {line}" for line in failure.journal[-JOURNAL_LINES:]]
    if failure.remedy:
        lines.append(f"  do      {_indented(failure.remedy)}")
    return "\n".join(lines)


def _indented(text: str) -> str:
    """Several lines of a host's that cannot be taken for lines of this report."""
    return text.replace("\n", "\n          ")


def verdict(rollout: Rollout) -> str:
    """The last lines: how it ended, what was put back, the next command."""
    services = {result.host for result in rollout.results.values()}
    took = f"{rollout.seconds:.1f} s"
    outcome = rollout.outcome
    if outcome == "failed":
        lines = [f"{rollout.action} of {rollout.environment} failed after {took}."]
        if rollout.put_back:
            lines.append("put back: " + ", ".join(map(shown, rollout.put_back)) + ".")
        else:
            lines.append("What ran before this run runs still, or again.")
        lines.append(f"next: {next_command.again(rollout)}  once the cause is gone")
    elif outcome == "interrupted":
        lines = [f"{rollout.action} of {rollout.environment} interrupted after {took}."]
        lines += [_left_by(rollout), f"next: {next_command.again(rollout)}"]
    elif outcome == "checked":
        lines = [
            f"{rollout.environment} checked in {took}; nothing was changed.",
            f"next: {next_command.after_looking(rollout)}",
        ]
    elif outcome == "unchanged":
        lines = [f"{rollout.environment} is as it should be; nothing to do ({took})."]
        lines.append(f"next: {next_command.verify(rollout)}")
    else:
        done = "rolled back" if rollout.action == "rollback" else "deployed"
        lines = [f"{rollout.environment} {done} in {took}, {len(services)} hosts with services confirmed."]
        lines.append(f"next: {next_command.verify(rollout)}")
    return "\n".join(lines)


def _left_by(rollout: Rollout) -> str:
    """What an interrupted run leaves on the hosts, and what becomes of it."""
    said = [f"put back: {', '.join(rollout.put_back)}."] if rollout.put_back else []
    waiting = [f"{entry.service} on {entry.host}" for entry in rollout.results.values() if entry.waits]
    if waiting:
        said.append(f"Not confirmed, goes back by itself: {', '.join(waiting)}.")
    if rollout.action == "rollback" and not rollout.undoes:
        said.append("If hosts had begun to go back, the next run finishes that on all of them first.")
    elif not waiting:
        said.append("Nothing waits for its confirmation: what ran before this run runs still, or again.")
    return " ".join(said)


def sentence(rollout: Rollout) -> str:
    """How the run ended, for the record on the Hub."""
    return shown(_sentence(rollout))


def _sentence(rollout: Rollout) -> str:
    if rollout.interrupted:
        left = [f"{e.service} on {e.host}" for e in rollout.results.values() if e.waits]
        back = f" Not confirmed, goes back by itself: {', '.join(left)}." if left else ""
        done = f" Put back: {', '.join(rollout.put_back)}." if rollout.put_back else ""
        return f"Interrupted on its controller.{done}{back}"
    if rollout.failures:
        first = rollout.failures[0]
        done = f" Put back: {', '.join(rollout.put_back)}." if rollout.put_back else ""
        return f"Failed on {first.host} at {first.step}: {first.message}.{done}"
    if rollout.outcome in ("unchanged", "checked"):
        return "Nothing was changed."
    changed = sorted({entry.host for entry in rollout.results.values() if entry.changed})
    what = "Rolled back" if rollout.action == "rollback" else "Deployed"
    return f"{what} in {rollout.seconds:.1f} s; services changed on {', '.join(changed) or 'no host'}."


def write(rollout: Rollout, under: Path | None = None) -> Path:
    """Keep record and report of a run; returns their directory."""
    directory = (under or REPORTS) / f"{rollout.started.strftime('%Y%m%dT%H%M%SZ')}-{rollout.id[:8]}"
    directory.mkdir(parents=True, exist_ok=True)
    record = {**rollout.record(), "sentence": sentence(rollout)}
    (directory / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (directory / "report.html").write_text(page(record), encoding="utf-8")
    return directory


def finish(rollout: Rollout) -> None:
    """Print how the run ended and keep its record."""
    rollout.seconds = time.monotonic() - rollout.began
    rollout.require_complete()
    for failure in rollout.failures:
        print(failure_text(failure), flush=True)
    shown = table(rollout)
    if shown:
        print(f"\n{shown}\n", flush=True)
    for line in summary(rollout.transfers):
        print(line, flush=True)
    print(verdict(rollout), flush=True)
    try:
        directory = write(rollout)
    except OSError as error:
        print(f"the report could not be kept: {error}; free the disk or correct the rights", file=sys.stderr)
        return
    shown_as = directory.relative_to(PROJECT) if directory.is_relative_to(PROJECT) else directory
    print(f"report: {shown_as}/report.html", flush=True)
    try:
        kept.prune(REPORTS, kept.number(), directory)
    except (OSError, ValueError) as error:
        print(f"old reports stay: {error}", file=sys.stderr)
