"""Results of a check: collected as data, shown as a table or as JSON, turned into an exit status."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import click
import msgspec

Verdict = Literal["PASS", "WARN", "FAIL", "SKIP"]
_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "SKIP": "blue"}


class Finding(msgspec.Struct, kw_only=True):
    """One line of a report."""

    name: str
    verdict: Verdict
    detail: str
    milliseconds: float


class Report(msgspec.Struct, kw_only=True):
    """A whole report. It fails when one finding fails."""

    title: str
    findings: list[Finding] = msgspec.field(default_factory=list)
    figures: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings; SKIP when there are none."""
        verdicts = {finding.verdict for finding in self.findings}
        for candidate in ("FAIL", "WARN", "PASS"):
            if candidate in verdicts:
                return candidate
        return "SKIP"

    def add(self, name: str, verdict: Verdict, detail: str, milliseconds: float = 0.0) -> None:
        """Add a finding."""
        self.findings.append(
            Finding(name=name, verdict=verdict, detail=detail, milliseconds=round(milliseconds, 3))
        )

    def run(self, name: str, check: Callable[[], str], expected: tuple[type[Exception], ...]) -> bool:
        """Run one check: its text is the detail of a PASS, an expected exception that of a FAIL."""
        began = time.perf_counter()
        try:
            detail, verdict = check(), "PASS"
        except Warned as warned:
            detail, verdict = str(warned), "WARN"
        except Skipped as skipped:
            detail, verdict = str(skipped), "SKIP"
        except expected as error:
            detail, verdict = str(error) or type(error).__name__, "FAIL"
        self.add(name, verdict, detail, (time.perf_counter() - began) * 1000)  # type: ignore[arg-type]
        return verdict != "FAIL"


class Warned(Exception):  # noqa: N818
    """A check that works but wants attention."""


class Skipped(Exception):  # noqa: N818
    """A check that does not apply here; the text says why."""


def show(report: Report, *, as_json: bool) -> None:
    """Print the report."""
    if as_json:
        body = msgspec.to_builtins(report)
        body["verdict"] = report.verdict
        click.echo(msgspec.json.format(msgspec.json.encode(body)).decode())
        return
    click.secho(report.title, bold=True)
    width = max((len(finding.name) for finding in report.findings), default=0)
    for finding in report.findings:
        verdict = click.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict])
        click.echo(f"  {verdict}  {finding.name:{width}}  {finding.milliseconds:8.1f} ms  {finding.detail}")
    for name, value in report.figures.items():
        click.echo(f"        {name}: {value}")
    click.secho(f"{report.verdict}", fg=_COLOURS[report.verdict], bold=True)


def exit_status(report: Report) -> int:
    """0 unless something failed."""
    return 1 if report.verdict == "FAIL" else 0


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain columns, as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in [headings, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


@contextmanager
def one_line_errors(*kinds: type[Exception], status: int = 1) -> Iterator[None]:
    """Turn expected errors into one message on standard error and an exit status."""
    try:
        yield
    except kinds as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(status) from error
