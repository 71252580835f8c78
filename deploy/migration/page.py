"""The report of a move: as text, and as one HTML page without outside resources. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import jinja2

from deploy.fleet.rendering import TEMPLATES


def html(report: Mapping[str, Any]) -> str:
    """The page. Every text of others is shown as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report/migration.html.j2").render(
        report=report, title=title(report), quiet=quiet(report["quiet"])
    )


def title(report: Mapping[str, Any]) -> str:
    """How it ended, in one sentence."""
    of = f"{report['host']} of {report['environment']}"
    if report["outcome"] == "moved":
        return f"{of} has moved from {report['from']} to {report['to']}"
    return f"{of} stays at {report['from']}: the move to {report['to']} was taken back"


def quiet(of: Mapping[str, Any]) -> list[str]:
    """For how long each magic number had no deal."""
    if "no_data" in of:
        return [f"no data: {of['no_data']}"]
    told = []
    for name, value in of["value"].items():
        if isinstance(value, str):
            told.append(f"{name}: not known ({value})")
        else:
            told.append(f"{name}: {value['longest_s']:.1f} s, {value['deals']} deals meanwhile")
    return told or ["no magic number is traded over this host"]


def text(report: Mapping[str, Any]) -> str:
    """The same in words."""
    lines = [f"{title(report)}.", f"why: {report['reason']} ({report['who']}, {report['began']})"]
    if report["why_undone"]:
        lines.append(f"taken back because: {report['why_undone']}")
    if report["resumed"]:
        lines.append(f"interrupted and gone on with: {report['resumed']} times")
    lines.append("steps:")
    lines += [f"  {one['what']}: {one['outcome']}, {one['seconds']:.1f} s" for one in report["steps"]]
    lines.append("links:")
    for host, layers in report["links"].items():
        lines += [f"  {host}  {one['verdict']:4}  {one['name']}: {one['detail']}" for one in layers]
    if not report["links"]:
        lines.append("  no strategy trades over this host, so no link was looked at")
    lines += ["longest time without a deal:", *(f"  {one}" for one in quiet(report["quiet"]))]
    lines.append("kill switch:")
    lines += [f"  {one['state']:7}  {one['what']}: {one['told']}" for one in report["checklist"]]
    lines += _listed("yours to do:", report["left"])
    return "\n".join(lines)


def _listed(heading: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return [heading, *found] if found else []


def pauses(times_msc: Iterable[int], begin_msc: int, end_msc: int) -> dict[str, float | int] | str:
    """The longest time between two deals of a span, in seconds; begin and end of the span count, too.

    A text when there was no deal before the last one that could tell: who does not trade has no pause.
    """
    inside = sorted(at for at in times_msc if begin_msc <= at <= end_msc)
    if not inside:
        return "no deal while it moved, nor directly before"
    moments = [begin_msc, *inside, end_msc]
    longest = max(after - before for before, after in pairwise(moments))
    return {"longest_s": longest / 1000, "deals": len(inside)}
