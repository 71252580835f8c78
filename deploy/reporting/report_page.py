"""The page of a deployment: one HTML file without any outside resource, made from its record alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from deploy.fleet.rendering import TEMPLATES
from deploy.rollout.transfers import megabytes

KINDS = (
    ("baseline", "baseline"),
    ("upload", "upload"),
    ("stage", "stage"),
    ("activate", "activate"),
    ("judge", "judge"),
    ("confirm", "confirm"),
    ("put-back", "put back, roll back"),
    ("failed", "failed"),
)


def page(record: Mapping[str, Any]) -> str:
    """HTML of a record (as in record.json, or as the Hub keeps it). Every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    spans = list(record.get("spans") or ())
    total = max([float(record.get("seconds") or 0.0), *(_end(span) for span in spans)])
    defaults = {"sentence": "", "why": "", "controller": "", "strategy": "", "plan": "", "steps": []}
    return environment.get_template("report/deployment.html.j2").render(
        record={**defaults, "failures": [], "put_back": [], **record},
        lanes=lanes(spans, total),
        services=services(record),
        transfers=transfers(record),
        kinds=KINDS,
        total=total,
    )


def lanes(spans: list[Mapping[str, Any]], total: float) -> list[dict[str, Any]]:
    """Per host its bars in percent of the run; each service of a host has a row of its own."""
    found = []
    for host in sorted({str(span["host"]) for span in spans}):
        own = [span for span in spans if span["host"] == host]
        rows = list(dict.fromkeys(str(span["service"]) for span in own))
        found.append({"host": host, "rows": rows, "bars": [_bar(span, rows, total) for span in own]})
    return found


def _bar(span: Mapping[str, Any], rows: list[str], total: float) -> dict[str, Any]:
    step, failed = str(span["step"]), span["outcome"] == "failed"
    name = f"{step} {span['service']}".strip()
    return {
        "row": rows.index(str(span["service"])),
        "left": round(100 * float(span["began"]) / (total or 1), 2),
        "width": round(100 * float(span["seconds"]) / (total or 1), 2),
        "kind": "failed" if failed else step.replace(" ", "-"),
        "title": f"{name}: {span['seconds']:.2f} s from {span['began']:.2f} s, {span['outcome']}",
    }


def services(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """A line per service of each host: before and after, health, how long it was away."""
    found = []
    for entry in record.get("services") or ():
        spans = [
            span
            for span in record.get("spans") or ()
            if (span["host"], span["service"]) == (entry["host"], entry["service"])
        ]
        health: Mapping[str, Any] = next(
            (span["health"] for span in reversed(spans) if span.get("health")), {}
        )
        cutover: Mapping[str, Any] = next(
            (span["cutover"] for span in reversed(spans) if span.get("cutover")), {}
        )
        before = entry.get("previous") if entry["changed"] else entry["generation"]
        found.append(
            {
                "host": str(entry["host"]),
                "service": str(entry["service"]),
                "before": _named(before, entry.get("previous_version")),
                "after": _named(entry["generation"], entry.get("version"))
                if entry["changed"]
                else "the same",
                "state": str(entry["state"]),
                "health": "; ".join(filter(None, (_health(health), *_in_the_shadow(spans)))),
                "gap": _longest_gap(cutover),
                "changes": ", ".join([*map(str, entry.get("changes") or ()), *_let_in(entry.get("review"))]),
                "seconds": f"{float(entry['seconds']):.1f}",
            }
        )
    return found


def _health(of: Mapping[str, Any]) -> str:
    return f"{of.get('outcome', '')}: {of.get('reason', '')}".strip(": ")


def _in_the_shadow(spans: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How the new version did in the shadow of the old one, if it was there."""
    for span in spans:
        if span.get("shadow"):
            yield f"in the shadow: {span['shadow'].get('reason', '')}"


def transfers(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """A line per bundle that came to a host or to the Hub's store, in the order in which they came."""
    return [
        {
            "host": f"{one['host']} (release store)" if one["to_store"] else str(one["host"]),
            "bundle": str(one["bundle"]),
            "source": str(one["source"]),
            "bytes": megabytes(int(one["bytes"])) + (" (went on)" if one["resumed_at"] else ""),
            "seconds": f"{float(one['seconds']):.1f}",
            "why": str(one["why"]),
        }
        for one in record.get("transfers") or ()
    ]


def _let_in(review: Mapping[str, Any] | None) -> list[str]:
    """Who let the bundle in without a verdict; nothing where there was one, or none was wanted."""
    override = (review or {}).get("override")
    if override is None:
        return []
    return [f"no verdict: {override['by']} lets it in until {override['until']}: {override['reason']}"]


def _longest_gap(cutover: Mapping[str, Any]) -> str:
    """The longest time that a unit of the service was away, as the release tool measured it."""
    gaps = [float(unit["gap_s"]) for unit in cutover.values() if "gap_s" in unit]
    return f"{max(gaps):.2f} s" if gaps else ""


def _named(generation: object, version: object) -> str:
    return " ".join(str(word) for word in (generation, version and f"({version})") if word) or "nothing"


def _end(span: Mapping[str, Any]) -> float:
    return float(span["began"]) + float(span["seconds"])
