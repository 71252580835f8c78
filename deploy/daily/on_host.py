"""What a gateway's journal and the Hub say of a day. Runs on the host, as root, standard library only.

Changes nothing. Prints one JSON object; a section that could not be looked at says why ({"error": …}).
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/mt5crs/gateway")
_TOOL = "/usr/local/sbin/mt5crs-release"
_STEP_S = 60
_MOST_STEPS = 10_000
"""Prometheus gives no more than 11 000 samples of a series; longer than a week it is looked at less often."""
_ANSWER_S = 20
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def submissions(asked: dict[str, Any]) -> dict[str, Any]:
    """Submissions of the day, counted by what became of them; `oldest`: broker time of the first sent."""
    count: Counter[tuple[str, int, str, str]] = Counter()
    with closing(_opened(STATE / "journal.db")) as db:
        oldest = db.execute("SELECT MIN(sent_msc) FROM submissions WHERE state != 'refused'").fetchone()[0]
        rows = db.execute(
            "SELECT request, state, sent_msc, answer FROM submissions WHERE sent_msc BETWEEN ? AND ?",
            (min(asked["from_msc"], asked["from_utc_msc"]), max(asked["to_msc"], asked["to_utc_msc"])),
        )
        for request, state, sent, text in rows:
            answer = json.loads(text) if text else {}
            # What was refused bears the time of the host, everything else that of the broker.
            first, last = ("from_utc_msc", "to_utc_msc") if state == "refused" else ("from_msc", "to_msc")
            if asked[first] <= sent < asked[last]:
                of = json.loads(request)
                result, reason = _fate(state, answer)
                count[str(of["kind"]), int(of["magic"]), result, reason] += 1
    told = [
        {"kind": kind, "magic": magic, "result": result, "reason": reason, "count": number}
        for (kind, magic, result, reason), number in sorted(count.items())
    ]
    return {"oldest": oldest, "counts": told}


def _fate(state: str, answer: dict[str, Any]) -> tuple[str, str]:
    if not answer:
        return "UNRESOLVED", "its fate is not known"
    if answer["kind"] == "ERROR":
        return "REFUSED", f"{answer['code']} {answer['field']}".strip()
    outcome = str(answer["outcome"])
    reason = "" if outcome in ("FILLED", "PLACED", "DRY_RUN") else str(answer["message"])[:120]
    return outcome, f"declared by a person; {reason}" if state == "declared" else reason


def acts(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Halts and resumes of the day, by the host's clock."""
    with closing(_opened(STATE / "control.db")) as db:
        rows = db.execute(
            "SELECT at_msc, act, magic, client, reason FROM acts "
            "WHERE at_msc >= ? AND at_msc < ? ORDER BY at_msc",
            (asked["from_utc_msc"], asked["to_utc_msc"]),
        ).fetchall()
    return [dict(zip(("at_msc", "act", "magic", "client", "reason"), row, strict=True)) for row in rows]


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True, timeout=10)


def _ask(asked: dict[str, Any], what: str, **parameters: object) -> list[dict[str, Any]]:
    url = f"{asked['prometheus']}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    with _direct(url, timeout=_ANSWER_S) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
    return found


def _seen(asked: dict[str, Any]) -> None:
    """Raise LookupError when Prometheus has nothing of that day: then nothing that fired is no finding."""
    length = int(asked["until"] - asked["from_utc_msc"] / 1000)
    if not _ask(asked, "query", query=f"count_over_time(up[{length}s])", time=asked["until"]):
        raise LookupError("Prometheus has no samples of that day")


def alerts(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Alerts that fired: since when, until when (Unix time), for how many minutes in all."""
    _seen(asked)
    length = asked["until"] - asked["from_utc_msc"] / 1000
    step = max(int(asked.get("step_s", _STEP_S)), int(length / _MOST_STEPS) + 1)
    found = _ask(
        asked,
        "query_range",
        query='ALERTS{alertstate="firing",severity!="info"}',
        start=asked["from_utc_msc"] / 1000,
        end=asked["until"],
        step=step,
    )
    return [
        {
            **{name: str(one["metric"].get(name, "")) for name in ("alertname", "host", "severity")},
            "first": one["values"][0][0],
            "last": one["values"][-1][0],
            "minutes": len(one["values"]) * step // 60,
        }
        for one in found
    ]


def latency(asked: dict[str, Any]) -> dict[str, Any]:
    """Seconds of an order call, by strategy host: quantiles, and how many fell into each bucket."""
    _seen(asked)
    length = int(asked["until"] - asked["from_utc_msc"] / 1000)
    rate = f"sum by (host, le) (increase(mt5crs_strategy_order_seconds_bucket[{length}s]))"
    told: dict[str, Any] = {}
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        query = f"histogram_quantile({share}, {rate})"
        for one in _ask(asked, "query", query=query, time=asked["until"]):
            value = float(one["value"][1])
            if value == value:
                told.setdefault(one["metric"].get("host", ""), {})[name] = value
    for one in _ask(asked, "query", query=rate, time=asked["until"]):
        host, edge = one["metric"].get("host", ""), one["metric"]["le"]
        if host in told:
            told[host].setdefault("buckets", {})[edge] = float(one["value"][1])
    return told


def deployments(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Deployments and rollbacks that began on that day."""
    done = subprocess.run(
        [_TOOL, "deployment", "list", "--json"], capture_output=True, timeout=30, check=True
    )
    names = ("started", "who", "why", "action", "outcome", "sentence")
    found = json.loads(done.stdout)["deployments"]
    return [
        {name: str(one.get(name) or "") for name in names}
        for one in found
        if asked["from_iso"] <= str(one.get("started"))[:19] < asked["to_iso"]
    ]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The sections that this host is asked for."""
    wanted: list[Callable[[dict[str, Any]], Any]] = []
    if asked["gateway"]:
        wanted += [submissions, acts]
    if asked["prometheus"]:
        wanted += [alerts, latency, deployments]
    told: dict[str, Any] = {}
    for look in wanted:
        try:
            told[look.__name__] = {"value": look(asked)}
        except Exception as error:  # whatever it is: the section is unknown, and why
            told[look.__name__] = {"error": f"{type(error).__name__}: {error}"}
    return told


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
