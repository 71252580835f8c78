"""What an incident is, what its records tell, in time; and its report in words. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

Priority = Literal["P0", "P1"]
TO_FILL_IN = 'to be filled in: mt5crs … incident close ID --root-cause "…"'
BEFORE_S = 3600.0
"""How far before it was opened its records are looked at."""
_SUSPECT_S = 3600.0


class Event(Struct, frozen=True, order=True):
    """Something that happened. `at`: Unix time; `source`: the record that tells of it."""

    at: float
    what: str
    source: str


class Figures(Struct, frozen=True, kw_only=True):
    """Seconds; None: not known, or not yet. `began`: when the first alert of it began to fire."""

    began: float | None
    detection_s: float | None
    """From then until it was opened."""
    halted_s: float | None
    """From then until trading was halted, by whomever."""
    recovery_s: float | None
    """From then until no critical alert fired any more."""


def identity(now: float, noise: str) -> str:
    """Id of an incident that is opened now."""
    return f"{time.strftime('%Y%m%d-%H%M', time.gmtime(now))}-{noise[:4]}"


def timeline(incident: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]], hub: str) -> list[Event]:
    """What all records tell, oldest first. told: host → its sections, as `deploy.daily.on_host` has them."""
    found = [Event(float(act["at"]), str(act["what"]), "incident") for act in incident["acts"]]
    for host, sections in told.items():
        found += [
            Event(each["at_msc"] / 1000, _act(host, each), f"gateway {host}")
            for each in _value(sections, "acts")
        ]
    of_hub = told.get(hub, {})
    for each in _value(of_hub, "alerts"):
        name = f"{each['alertname']} ({each['severity']}{', ' + each['host'] if each['host'] else ''})"
        found.append(Event(float(each["first"]), f"{name} fires", "Prometheus"))
        found.append(Event(float(each["last"]), f"{name} fires for the last time", "Prometheus"))
    for each in _value(of_hub, "deployments"):
        at = seconds(each["started"])
        if at is not None:
            what = f"{each['action']} by {each['who']} begins; it ends {each['outcome'] or 'unknown'}"
            found.append(Event(at, what, "deployments"))
    return sorted(found)


def unknown(told: Mapping[str, Mapping[str, Any]], gateways: Iterable[str], hub: str) -> list[str]:
    """Records that could not be had, each with its reason."""
    wanted = [(host, "acts") for host in gateways] + [(hub, "alerts"), (hub, "deployments")]
    missing = []
    for host, name in wanted:
        sections = told.get(host, {"error": "the inventory has no Hub"})
        why = sections.get("error") or (sections.get(name) or {"error": "it was not told"}).get("error")
        if why:
            missing.append(f"{name} of {host or 'the Hub'}: {why}")
    return missing


def figures(incident: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]], hub: str) -> Figures:
    """How long things took, from what is recorded. What began long before is no part of it."""
    opened = float(incident["opened"])
    critical = [each for each in _value(told.get(hub, {}), "alerts") if each["severity"] == "critical"]
    critical = [each for each in critical if each["first"] >= opened - BEFORE_S]
    began = min((float(each["first"]) for each in critical), default=None)
    if began is None:
        return Figures(began=None, detection_s=None, halted_s=None, recovery_s=None)
    halts = [
        each["at_msc"] / 1000
        for sections in told.values()
        for each in _value(sections, "acts")
        if each["act"] == "halt" and each["at_msc"] / 1000 >= began
    ]
    closed = incident.get("closed")
    over = max(float(each["last"]) for each in critical)
    return Figures(
        began=began,
        detection_s=max(0.0, opened - began),
        halted_s=min(halts) - began if halts else None,
        recovery_s=over - began if closed is not None and over < float(closed) else None,
    )


def suspect(deployments: Iterable[Mapping[str, Any]], began: float) -> Mapping[str, Any] | None:
    """The deployment that it may come from: the last that began within the hour before; None: none did."""
    near = [
        (at, each)
        for each in deployments
        if each.get("action") == "deploy"
        and (at := seconds(str(each.get("started") or ""))) is not None
        and began - _SUSPECT_S <= at <= began
    ]
    return max(near, key=lambda each: each[0])[1] if near else None


def report(incident: Mapping[str, Any], events: Iterable[Event], of: Figures, missing: Iterable[str]) -> str:
    """The report as Markdown."""
    lines = [
        f"# Incident {incident['id']} ({incident['priority']}, {incident['state']})",
        "",
        str(incident["what"]),
        "",
        "| | |",
        "|---|---|",
        f"| opened | {clock(float(incident['opened']))} by {incident['by']} |",
        f"| closed | {clock(float(incident['closed'])) if incident.get('closed') else 'not yet'} |",
        f"| first critical alert | {'unknown: none is recorded' if of.began is None else clock(of.began)} |",
        f"| from then to its opening | {_took(of.detection_s)} |",
        f"| to a halt | {_took(of.halted_s)} |",
        f"| to the last critical alert's end | {_took(of.recovery_s)} |",
        "",
        "## Root cause",
        "",
        str(incident.get("root_cause") or TO_FILL_IN),
        "",
        "## Time line",
        "",
        "| UTC | what | told by |",
        "|---|---|---|",
        *(f"| {clock(each.at)} | {_cell(each.what)} | {_cell(each.source)} |" for each in events),
    ]
    missing = list(missing)
    if missing:
        lines += ["", "## Not known", "", *(f"- {each}" for each in missing)]
    return "\n".join(lines) + "\n"


def seconds(text: str) -> float | None:
    """Unix time of a record's time (UTC); None if it is none."""
    import calendar

    try:
        return float(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def clock(at: float) -> str:
    """A moment in words, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _value(sections: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return list((sections.get(name) or {}).get("value") or ())


def _act(host: str, act: Mapping[str, Any]) -> str:
    whom = f"magic number {act['magic']}" if act["magic"] else "everything"
    return f"{act['act']} of {whom} at {host} by {act['client']}: {act['reason']}"


def _took(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} s"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
