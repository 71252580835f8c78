"""What is known of every alert: when it began, how often it did, whether it is over. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

_NOT_OF_THE_ALERT = ("environment",)
"""Labels that Prometheus adds when it tells Alertmanager."""
MOST_KEPT, MOST_SHOWN = 5000, 1000


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as Prometheus tells of it. `since`: text of its time; `value` None: not known."""

    labels: dict[str, str]
    state: Literal["pending", "firing"]
    since: str
    value: float | None
    summary: str
    description: str
    runbook_url: str


def key_of(labels: Mapping[str, str]) -> str:
    """The lasting id of an alert: its name, and a digest of all its labels."""
    told = {name: value for name, value in labels.items() if name not in _NOT_OF_THE_ALERT}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    return f"{labels.get('alertname', 'alert')[:100]}-{digest}"


def advance(
    kept: Mapping[str, Mapping[str, Any]], fired: Iterable[Fired], now: float, keep_s: float
) -> tuple[list[dict[str, Any]], list[str], int]:
    """Alerts that have changed, as they are now; ids of those to forget; how many are too many to be kept.

    An alert that is pending and never fires is forgotten; one that fired stays, resolved, for `keep_s`.
    """
    changed: list[dict[str, Any]] = []
    there: set[str] = set()
    left_out = 0
    for each in fired:
        name = key_of(each.labels)
        there.add(name)
        if name not in kept and len(kept) + len(changed) >= MOST_KEPT:
            left_out += 1
            continue
        after = _now(name, kept.get(name), each)
        if after != kept.get(name):
            changed.append(after)
    gone: list[str] = []
    for name, before in kept.items():
        if name in there:
            continue
        if before["state"] == "resolved":
            if before["until"] < now - keep_s:
                gone.append(name)
        elif before["count"]:
            changed.append({**before, "state": "resolved", "until": now})
        else:
            gone.append(name)
    return changed, gone, left_out


def _now(name: str, before: Mapping[str, Any] | None, fired: Fired) -> dict[str, Any]:
    count = int(before["count"]) if before else 0
    since = _seconds(fired.since)
    same = before is not None and before["state"] == "firing" and before["since"] == since
    if fired.state == "firing" and not same:
        count += 1
    return {
        "id": name,
        "name": fired.labels.get("alertname", ""),
        "severity": fired.labels.get("severity", ""),
        "host": fired.labels.get("host", ""),
        "state": fired.state,
        "since": since,
        "until": None,
        "count": count,
        "value": fired.value,
        "summary": fired.summary,
        "description": fired.description,
        "runbook_url": fired.runbook_url,
        "labels": dict(fired.labels),
    }


def _seconds(text: str) -> float | None:
    """Unix time of an RFC 3339 time with up to nine digits of a second; None when it is none."""
    moment, dot, rest = text.removesuffix("Z").partition(".")
    if text == moment:  # an offset instead of Z: not what Prometheus writes
        return None
    try:
        whole = datetime.fromisoformat(f"{moment}+00:00").timestamp()
        return round(whole + (float(f"0.{rest}") if dot else 0.0), 3)
    except ValueError:
        return None


_RANK = {"critical": 0, "warning": 1, "info": 2}
_STATES = {"firing": 0, "pending": 1, "resolved": 2}


def shown(
    kept: Iterable[Mapping[str, Any]],
    silences: Mapping[str, bool] | None,
    left_out: int = 0,
    acknowledged: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What `/api/alerts/state` lists: what fires first, the worst and newest of it first.

    silences: whether each is held back; None: not known. left_out: how many more there are than are kept.
    acknowledged: who looks after it, by id and count.
    """
    ordered = sorted(
        kept,
        key=lambda each: (
            _STATES.get(each["state"], 9),
            _RANK.get(each["severity"], 3),
            -(each["until"] or each["since"] or 0.0),
            each["id"],
        ),
    )
    counts = {state: sum(each["state"] == state for each in ordered) for state in _STATES}
    return {
        "counts": counts,
        "left_out": left_out + max(0, len(ordered) - MOST_SHOWN),
        "alerts": [
            {
                **each,
                "silenced": None if silences is None else silences.get(each["id"], False),
                "acknowledged": (acknowledged or {}).get((each["id"], each["count"])),
            }
            for each in ordered[:MOST_SHOWN]
        ],
    }
