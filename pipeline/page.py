"""The page of a pipeline: every stage with its steps, figures and files, in one HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from pipeline import record
from pipeline.errors import PipelineError
from pipeline.order import STAGES, flaw
from pipeline.record import DIRECTORY, Record
from pipeline.source import Source

NAME: Final = "index.html"
TREND: Final = "coverage.jsonl"
"""Coverage of every commit whose stage quality has ended, oldest first."""
_TREND_SHOWN: Final = 20
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; }
th, td { border-bottom: 1px solid #8884; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
.passed { color: #17803d; }
.failed { color: #c62828; font-weight: 600; }
.other { color: #b26a00; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  .passed { color: #6fd08c; } .failed { color: #ff8a80; } .other { color: #ffc46b; }
}
"""


def keep(root: Path, source: Source) -> Path:
    """Write the page of all records that there are; return it. OSError."""
    found: dict[str, Record | str] = {}
    for stage in STAGES:
        try:
            read = record.read(stage, root)
        except PipelineError as error:
            found[stage] = str(error)
        else:
            if read is not None:
                found[stage] = read[0]
    directory = root / DIRECTORY
    quality = found.get("quality")
    path = directory / NAME
    path.write_text(text(found, source, _trend(directory, quality)), encoding="utf-8")
    return path


def _trend(directory: Path, quality: Record | str | None) -> list[Mapping[str, Any]]:
    path = directory / TREND
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if isinstance(quality, Record) and "coverage" in quality.figures:
        entry = {
            "commit": quality.commit,
            "began": quality.began,
            "branches": quality.figures["coverage"]["branches"],
        }
        if entry not in known:
            known.append(entry)
            path.write_text("".join(f"{json.dumps(each)}\n" for each in known))
    return known


def text(found: Mapping[str, Record | str], source: Source, trend: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page. `found`: a stage's record, or why it cannot be read."""
    rows, parts = [], []
    for stage in STAGES:
        each = found.get(stage)
        told = each if isinstance(each, Record) else None
        why = each if isinstance(each, str) else flaw(stage, told, source)
        outcome = "not run" if each is None else "refused" if told is None else told.outcome
        link = f'<a href="#{stage}">{stage}</a>' if told else stage
        seconds = f"{told.seconds / 60:.1f} min" if told else ""
        cells = (link, _outcome(outcome), seconds, escape(why or ""))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        if told:
            parts.append(_stage(told))
    if trend:
        parts.append(_coverage_trend(trend))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Pipeline of {source.commit[:12]}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Pipeline</h1><p>Commit <code>{escape(source.commit)}</code>, "
        f"tree <code>{escape(source.tree)}</code></p>\n"
        f"{_table(('stage', 'outcome', 'time', 'note'), rows)}\n{''.join(parts)}</body></html>\n"
    )


def _stage(of: Record) -> str:
    steps = [
        "<tr>"
        f"<td>{escape(step.name)}</td><td>{_outcome(step.outcome)}</td><td>{step.seconds:.0f} s</td>"
        f"<td><code>{escape(' '.join(step.command))}</code></td><td>{escape(step.detail)}</td>"
        + (f'<td><a href="{escape(step.log)}">log</a></td>' if step.log else "<td></td>")
        + "</tr>"
        for step in of.steps
    ]
    made = [
        f"<tr><td>{escape(name)}</td><td><code>{digest}</code></td></tr>" for name, digest in of.made.items()
    ]
    tools = ", ".join(escape(f"{name} {version}") for name, version in of.tools.items())
    figures = "".join(
        f"<details><summary>{escape(name)}</summary>"
        f"<pre>{escape(json.dumps(value, indent=1))}</pre></details>"
        for name, value in of.figures.items()
    )
    return (
        f'<h2 id="{of.stage}">{of.stage}: {_outcome(of.outcome)}</h2>'
        f"<p>Commit <code>{of.commit[:12]}</code>, begun {escape(of.began)}, {of.seconds:.0f} s; "
        f'<a href="{of.stage}.json">record</a>, <a href="{of.stage}.json.sig">signature</a></p>'
        f"{_table(('step', 'outcome', 'time', 'command', 'why', 'output'), steps)}"
        f"{_table(('made', 'SHA-256'), made) if made else ''}{figures}<p>With {tools}.</p>\n"
    )


def _coverage_trend(trend: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td>{escape(str(each['began']))}</td><td><code>{escape(str(each['commit'])[:12])}</code></td>"
        f"<td>{each['branches']:.2f} %</td></tr>"
        for each in reversed(trend[-_TREND_SHOWN:])
    ]
    return f"<h2>Branches covered, by commit</h2>{_table(('when', 'commit', 'branches'), rows)}"


def _table(headings: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _outcome(outcome: str) -> str:
    kind = outcome if outcome in ("passed", "failed") else "other"
    return f'<span class="{kind}">{escape(outcome)}</span>'
