"""Service levels, reckoned from records: what was looked at, what fired, what was deployed. Pure.

A level is `value`, or `no_data` with the reason; `of` says of how many cases, `target` what was asked for.
"""

from __future__ import annotations

import calendar
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

KEPT = 60
"""Deployments that the release tool tells the Hub of."""
_GOOD = frozenset({"changed"})
_BAD = frozenset({"failed", "interrupted", "undone"})
_COUNTED = frozenset({"critical", "warning"})
TARGETS: Mapping[str, tuple[str, float]] = {
    "deployment_success_percent": (">", 99.0),
    "availability_percent": (">", 99.9),
    "detection_s": ("<", 60.0),
    "recovery_s": ("<", 300.0),
    "alert_accuracy_percent": (">", 95.0),
    "monitoring_coverage_percent": (">", 95.0),
    "watched_percent": (">", 95.0),
}
DEFINITIONS: Mapping[str, str] = {
    "deployment_success_percent": "Deployments that ended as meant, of those that ended; no rollbacks.",
    "availability_percent": "Looks at gateways, reconcilers and strategies that found them up, of all looks.",
    "detection_s": "From when an alert's condition began to hold until it fired; 95 of 100 took at most so "
    "long. Those that began while nobody looked are left out.",
    "recovery_s": "From when a critical alert's condition began to hold until it was over; 95 of 100 took at "
    "most so long.",
    "alert_accuracy_percent": "Alerts behind which there was something, of those that a person has judged by "
    "acknowledging.",
    "monitoring_coverage_percent": "Gateways, reconcilers and strategies of the inventory that were seen.",
    "watched_percent": "Time in which the Hub and its Prometheus looked, of all time; what was in the rest "
    "is not known.",
}


def month(text: str, now: float) -> tuple[float, float]:
    """Beginning and end (Unix time, UTC) of a month YYYYMM. ValueError if it is none, or has not begun."""
    year, number = int(text[:4]), int(text[4:])
    since = calendar.timegm((year, number, 1, 0, 0, 0))
    if since > now:
        raise ValueError(f"{text} has not begun")
    return float(since), float(since + calendar.monthrange(year, number)[1] * 86_400)


def reckoned(
    *,
    since: float,
    until: float,
    expected: Collection[tuple[str, str]],
    ups: Mapping[tuple[str, str], tuple[int, int]],
    looked_s: float,
    fired: Sequence[Mapping[str, Any]],
    deployments: Sequence[Mapping[str, Any]] | None,
    no_deployments: str = "",
    most_deployments: int = KEPT,
) -> dict[str, dict[str, Any]]:
    """Every level of a stretch of time (Unix time). expected: (host, job) that the inventory has.

    ups: how often each was looked at, and was up. fired: alerts of that time. deployments: the newest ones,
    None when not known.
    """
    alerts = [each for each in fired if each["severity"] in _COUNTED]
    found = {
        "deployment_success_percent": _success(since, until, deployments, no_deployments, most_deployments),
        "availability_percent": _availability(expected, ups),
        "detection_s": _quantile(
            [each["told"] - each["began"] for each in alerts if each["watched"]],
            "no alert began to fire while somebody looked",
        ),
        "recovery_s": _recovery(alerts),
        "alert_accuracy_percent": _accuracy(alerts),
        "monitoring_coverage_percent": _coverage(expected, ups),
        "watched_percent": _watched(since, until, looked_s),
    }
    for name, level in found.items():
        sign, target = TARGETS[name]
        level["target"] = f"{sign} {target:g}"
        level["definition"] = DEFINITIONS[name]
        if "value" in level:
            level["met"] = level["value"] > target if sign == ">" else level["value"] < target
    return found


def _success(
    since: float,
    until: float,
    deployments: Sequence[Mapping[str, Any]] | None,
    reason: str,
    most: int,
) -> dict[str, Any]:
    if deployments is None:
        return {"no_data": reason}
    begun = [(each, _seconds(str(each.get("started") or ""))) for each in deployments]
    ended = [
        each
        for each, at in begun
        if at is not None
        and since <= at < until
        and each.get("action") == "deploy"
        and each.get("outcome") in _GOOD | _BAD
    ]
    if not ended:
        return {"no_data": "no deployment ended in that time"}
    level = _share(sum(each["outcome"] in _GOOD for each in ended), len(ended))
    oldest = min((at for _, at in begun if at is not None), default=since)
    if len(deployments) >= most and oldest > since:
        level["partly"] = f"only the newest {most} are known, from {_day(oldest)} on"
    return level


def _availability(
    expected: Collection[tuple[str, str]], ups: Mapping[tuple[str, str], tuple[int, int]]
) -> dict[str, Any]:
    looked = [ups[each] for each in expected if each in ups]
    looks = sum(each[0] for each in looked)
    return _share(sum(each[1] for each in looked), looks) if looks else {"no_data": "nobody looked"}


def _coverage(
    expected: Collection[tuple[str, str]], ups: Mapping[tuple[str, str], tuple[int, int]]
) -> dict[str, Any]:
    if not expected:
        return {"no_data": "the inventory has no gateway and no Inf host"}
    missing = sorted(f"{job} of {host}" for host, job in expected if (host, job) not in ups)
    level = _share(len(expected) - len(missing), len(expected))
    return {**level, "missing": missing} if missing else level


def _recovery(alerts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    critical = [each for each in alerts if each["severity"] == "critical"]
    over = [each["over"] - each["began"] for each in critical if each["over"] is not None]
    level = _quantile(over, "no critical alert is over" if critical else "no critical alert fired")
    if len(over) < len(critical):
        level["partly"] = f"{len(critical) - len(over)} not over yet"
    return level


def _accuracy(alerts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    judged = [each for each in alerts if each["false_alarm"] is not None]
    if not judged:
        return {"no_data": f"nobody has judged one of {len(alerts)} alerts" if alerts else "no alert fired"}
    level = _share(sum(not each["false_alarm"] for each in judged), len(judged))
    if len(judged) < len(alerts):
        level["partly"] = f"{len(alerts) - len(judged)} were not judged"
    return level


def _watched(since: float, until: float, looked_s: float) -> dict[str, Any]:
    # Days are counted as a whole: the first that begins within, to the end.
    first = math.ceil(since / 86_400) * 86_400
    if until <= first:
        return {"no_data": "no day has begun in that time"}
    if not looked_s:
        return {"no_data": "nobody looked"}
    return {"value": round(min(100.0, looked_s / (until - first) * 100), 4), "of": round(until - first)}


def _share(good: int, of: int) -> dict[str, Any]:
    return {"value": round(good / of * 100, 4), "of": of}


def _quantile(values: Sequence[float], nothing: str) -> dict[str, Any]:
    if not values:
        return {"no_data": nothing}
    ordered = sorted(max(0.0, each) for each in values)
    return {"value": round(ordered[math.ceil(0.95 * len(ordered)) - 1], 3), "of": len(ordered)}


def _seconds(text: str) -> float | None:
    """Unix time of a record's time, as the release tool writes it (UTC); None if it is none."""
    try:
        return float(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
