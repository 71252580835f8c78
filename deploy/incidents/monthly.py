"""A month in words: service levels as the Hub has reckoned them, and incidents."""

from __future__ import annotations

import calendar
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from deploy.incidents.record import clock
from mt5crs.foreign_text import shown_tree

_TIMEOUT_S = 20
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class NoLevelsError(RuntimeError):
    """The Hub does not tell; the text says why and what to do."""


def asked(variables: Mapping[str, Any], month: str) -> dict[str, Any]:
    """What the Hub with these variables says of a month (YYYYMM). NoLevelsError."""
    address = str(variables["fleet_address"])
    shown = f"[{address}]" if ":" in address else address
    url = f"http://{shown}:{variables['hub_http_port']}/api/levels?month={month}"
    try:
        with _direct(url, timeout=_TIMEOUT_S) as answer:
            found = shown_tree(json.load(answer))
        if not isinstance(found, dict) or not isinstance(found.get("levels"), dict):
            raise ValueError("it is no answer of a Hub")
        return dict(found)
    except urllib.error.HTTPError as error:
        raise NoLevelsError(f"{url} answers {error.code}; deploy the Hub, or name another month") from None
    except (OSError, ValueError) as error:
        why = "look whether mt5crs-hub runs, and whether this host may reach it"
        raise NoLevelsError(f"{url} gives no usable answer ({error}); {why}") from None


def text(made: Mapping[str, Any]) -> str:
    """The report in words."""
    lines = [
        f"{made['environment']}, {clock(made['since'])[:10]} to {clock(made['until'])[:10]} (UTC)",
        "",
        f"{'level':<30}{'is':>12}  {'asked for':<10}of",
    ]
    for name, level in made["levels"].items():
        if "no_data" in level:
            lines.append(f"{name:<30}{'no data':>12}  {level['target']:<10}{level['no_data']}")
            continue
        note = "; ".join(
            [
                str(level["of"]),
                *([level["partly"]] if "partly" in level else []),
                *([f"not looked at: {', '.join(level['missing'])}"] if "missing" in level else []),
            ]
        )
        kept = "" if level["met"] else "MISSED, "
        lines.append(f"{name:<30}{level['value']:>12g}  {level['target']:<10}{kept}{note}")
    lines += ["", f"incidents: {len(made['incidents'])}"]
    lines += [
        f"  {each['id']}  {each['priority']}  {each['state']}: {each['what']}; "
        f"root cause: {each['root_cause'] or 'to be filled in'}"
        for each in made["incidents"]
    ]
    lines += ["", *(f"{name}: {level['definition']}" for name, level in made["levels"].items())]
    return "\n".join(lines) + "\n"


def first_of_this(now: float) -> float:
    """When the month of this moment began (Unix time, UTC)."""
    of = time.gmtime(now)
    return float(calendar.timegm((of.tm_year, of.tm_mon, 1, 0, 0, 0)))


def stamp(at: float) -> str:
    """A moment as Alertmanager takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
