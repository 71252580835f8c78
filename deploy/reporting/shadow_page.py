"""What two versions of a strategy decided, as text and as one HTML page without outside resources. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import jinja2

from deploy.fleet.rendering import TEMPLATES

_WIDTH, _LANE = 720.0, 36.0
_ROWS = 20
NAMES = {
    "same": "the same",
    "late": "the same, earlier or later",
    "volume": "another volume",
    "price": "another price",
    "only_running": "running version only",
    "only_new": "new version only",
}
"""How two decisions compare, in words."""
_AGREE = ("same", "late")


def text(told: Mapping[str, Mapping[str, Any]]) -> str:
    """Counts of every host, and its newest differences as a table."""
    return "\n".join(line for host, one in told.items() for line in _lines(host, one))


def html(told: Mapping[str, Mapping[str, Any]]) -> str:
    """The page. Every text of others is shown as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    hosts = [
        {
            "host": host,
            "said": sentence(one),
            "shadow": one.get("shadow"),
            "plot": plot(one.get("shadow") or {}),
            "rows": [row_of(row) for row in reversed((one.get("shadow") or {}).get("rows") or ())],
        }
        for host, one in told.items()
    ]
    template = environment.get_template("report/shadow.html.j2")
    return template.render(hosts=hosts, names=NAMES, width=_WIDTH, lane=_LANE, agree=_AGREE)


def sentence(one: Mapping[str, Any]) -> str:
    """What is known of a host, in one line; what is not is called so."""
    if "unknown" in one:
        return f"not known: {one['unknown']}"
    found = one.get("shadow")
    if not found:
        return "no strategy has run in the shadow here"
    if found["state"] != "running":
        how = "promoted" if found["promoted"] else "not promoted"
        return f"{how}: {found['reason']}"
    left = max(0.0, float(found["window_s"]) - (float(found["now"]) - float(found["began"])))
    return f"{one['generation']} runs in the shadow, {left:.0f} s are left: {share(found)}"


def share(found: Mapping[str, Any]) -> str:
    """How much agrees; never a percentage of nothing."""
    ratio = found["agreement"]
    if ratio is None:
        return f"no decisions yet in {found['replayed']} callbacks, so nothing is known"
    agreed = sum(int(found[what]) for what in _AGREE)
    shown = 100.0 if ratio == 1 else math.floor(float(ratio) * 1000) / 10
    return f"{agreed} of {found['decisions']} decisions agree ({shown:.1f} %)"


def row_of(row: Mapping[str, Any]) -> dict[str, str]:
    """A decision as text: when, what, and each side."""
    late = row["late_s"]
    return {
        "at": _clock(row["at_ms"]),
        "what": NAMES[row["what"]],
        "agrees": "yes" if row["what"] in _AGREE else "",
        "order": f"{row['kind']} {row['side']} {row['symbol']}"
        + (f" #{row['ticket']}" if row["ticket"] else ""),
        "running": _side(row["running"]),
        "new": _side(row["new"]),
        "late": "" if late is None else f"{float(late) * 1000:+.1f} ms",
    }


def plot(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Marks along the time, the running version's above the new one's; None when there is nothing to draw."""
    rows = found.get("rows") or ()
    if not rows:
        return None
    first, last = int(rows[0]["at_ms"]), int(rows[-1]["at_ms"])
    across = (last - first) or 1
    marks = []
    for row in rows:
        kind = "agree" if row["what"] in _AGREE else "only" if row["what"].startswith("only") else "other"
        x = round((int(row["at_ms"]) - first) / across * (_WIDTH - 12) + 6, 1)
        title = f"{_clock(row['at_ms'])} {row['kind']} {row['side']} {row['symbol']}: {NAMES[row['what']]}"
        for lane, side in enumerate(("running", "new")):
            if row[side] is not None:
                marks.append({"x": x, "y": lane * _LANE + _LANE / 2, "kind": kind, "title": title})
    return {"marks": marks, "first": _clock(first), "last": _clock(last)}


def _lines(host: str, one: Mapping[str, Any]) -> list[str]:
    lines = [f"{host}: {sentence(one)}"]
    found = one.get("shadow")
    if not found:
        return lines
    if found["decisions"]:
        lines += [f"  {found[what]:>6}  {name}" for what, name in NAMES.items() if found[what]]
    lines.append(
        f"  {found['calls']} callbacks, of which the new version has been through {found['replayed']}; "
        f"{found['before']} decisions when it began are not compared; it asked {found['asked_itself']} times "
        "for what the running one had not asked"
    )
    own = found["own_s"]
    for side, name in (("running", "running version"), ("new", "new version")):
        if own[side]:
            lines.append(
                f"  own time of a callback, {name}: median {own[side]['median'] * 1000:.1f} ms, "
                f"worst {own[side]['worst'] * 1000:.1f} ms"
            )
    differs = [row_of(row) for row in found["rows"] if row["what"] not in _AGREE]
    if differs:
        heading = {"at": "at", "what": "what", "order": "order", "running": "running", "new": "new"}
        lines += [f"  {line}" for line in _table([heading, *differs[-_ROWS:]], tuple(heading))]
    if len(differs) > _ROWS:
        lines.append(f"  {len(differs) - _ROWS} earlier ones: --json, or --html FILE")
    lines += [f"  not known: {what}" for what in found["cannot_know"]]
    return lines


def _table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> list[str]:
    widths = {name: max(len(row[name]) for row in rows) for name in columns}
    return ["  ".join(row[name].ljust(widths[name]) for name in columns).rstrip() for row in rows]


def _side(of: Mapping[str, Any] | None) -> str:
    if of is None:
        return "—"
    prices = [f"{name} {of[name]:g}" for name in ("price", "sl", "tp") if of[name] is not None]
    became = [str(of["became"])] if of["became"] else []
    return " ".join([f"{of['volume']:g}", *prices, *became, f"({of['where']})"])


def _clock(at_ms: object) -> str:
    moment = datetime.fromtimestamp(int(str(at_ms)) / 1000, timezone.utc)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
