"""A month in words: service levels as the Hub has reckoned them, and incidents."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Mapping
from typing import Any

from deploy.incidents.record import clock
from deploy.remote import ssh
from mt5crs.foreign_text import shown_tree

_TIMEOUT_S = 20
# Runs on the Hub, standard library only: to others it speaks by TLS alone, with a certificate of its own.
_ASK = f"""
import sys, urllib.request
direct = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))  # whatever http_proxy says there
print(direct.open(sys.argv[1], timeout={_TIMEOUT_S}).read().decode())
"""


class NoLevelsError(RuntimeError):
    """The Hub does not tell; the text says why and what to do."""


def asked(variables: Mapping[str, Any], month: str) -> dict[str, Any]:
    """What the Hub with these variables says of a month (YYYYMM). NoLevelsError."""
    address = str(variables["fleet_address"])
    shown = f"[{address}]" if ":" in address else address
    url = f"http://{shown}:{variables['hub_http_port']}/api/levels?month={month}"
    reply = ssh.run(variables, ["python3", "-c", _ASK, url], timeout_s=_TIMEOUT_S + 10)
    if reply.status is None:
        raise NoLevelsError(f"the Hub cannot be reached: {reply.why}")
    try:
        found = shown_tree(json.loads(reply.output)) if reply.status == 0 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("levels"), dict):
        why = "look whether mt5crs-hub runs there, deploy it, or name another month"
        raise NoLevelsError(f"{url} gives no usable answer ({reply.why}); {why}")
    return dict(found)


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
