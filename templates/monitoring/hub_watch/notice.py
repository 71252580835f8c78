"""What the receiver has been told, what it is to be told next, and in which form. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from hub_watch.verdict import SILENT, UNKNOWN, WELL

AGAIN_S = 3600.0
"""While it lasts, it is told again after so long."""
_MOST_WAIT_S = 60.0
_NEVER = "0001-01-01T00:00:00Z"
ALERTS = {SILENT: ("Mt5crsHubSilent", "critical"), UNKNOWN: ("Mt5crsHubUnseen", "warning")}


@dataclass(frozen=True)
class Told:
    """What the receiver accepted last. began: since when it was so, at: when it was told (seconds, UTC)."""

    verdict: str = WELL
    began: float = 0.0
    at: float = 0.0


@dataclass(frozen=True)
class Names:
    """Who watches whom. runbook: address of a page with the runbook; empty: only the Hub shows one."""

    hub: str
    watcher: str
    environment: str
    runbook: str = ""


def owed(told: Told, verdict: str | None, began: float, now: float) -> Told | None:
    """What is to be told now, None: nothing. It counts as told only once the receiver has accepted it.

    verdict: None, too early to say, changes nothing. A Hub that was told to be silent stays so until it is
    well: that the network is doubtful as well is no news of it.
    """
    if verdict is None or (verdict == UNKNOWN and told.verdict == SILENT):
        verdict = told.verdict
    if verdict != told.verdict:
        return Told(verdict, began, now)
    if verdict != WELL and not 0 <= now - told.at < AGAIN_S:  # also when the clock was set back
        return replace(told, at=now)
    return None


def wait_s(failures: int) -> float:
    """Seconds until the next try after so many that failed."""
    return 0.0 if failures == 0 else min(_MOST_WAIT_S, 2.0 ** min(failures, 10))


def message(before: Told, now: Told, names: Names, late: tuple[str, ...], limit_s: float) -> dict[str, Any]:
    """What is posted: Alertmanager's webhook format (version 4), so that one receiver reads both."""
    alerts = []
    if before.verdict not in (WELL, now.verdict):
        alerts.append(_alert(before, names, (), limit_s, ended=now.at))
    if now.verdict != WELL:
        alerts.append(_alert(now, names, late, limit_s, ended=None))
    firing = any(alert["status"] == "firing" for alert in alerts)
    return {
        "version": "4",
        "groupKey": f"hub_watch:{names.hub}:{names.watcher}",
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "hub_watch",
        "groupLabels": {"host": names.hub},
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": "",
        "alerts": alerts,
    }


def _alert(
    told: Told, names: Names, late: tuple[str, ...], limit_s: float, *, ended: float | None
) -> dict[str, Any]:
    name, severity = ALERTS[told.verdict]
    labels = {
        "alertname": name,
        "severity": severity,
        "host": names.hub,
        "seen_from": names.watcher,
        "environment": names.environment,
    }
    shown = "".join(f"{key}={value}\n" for key, value in sorted(labels.items()))
    return {
        "status": "firing" if ended is None else "resolved",
        "labels": labels,
        "annotations": _annotations(told.verdict, name, names, late, limit_s),
        "startsAt": _time(told.began),
        "endsAt": _NEVER if ended is None else _time(ended),
        "generatorURL": "",
        "fingerprint": hashlib.sha256(shown.encode()).hexdigest()[:16],
    }


def _annotations(
    verdict: str, name: str, names: Names, late: tuple[str, ...], limit_s: float
) -> dict[str, str]:
    if verdict == SILENT:
        summary = f"{names.hub}: nothing was heard of it on {names.watcher} for {limit_s:.0f} s"
        summary += f": {' and '.join(late)}." if late else "."
        first = (
            "Nobody is told of alerts. Is the Hub up, do prometheus and prometheus-alertmanager run there?"
        )
    else:
        summary = f"{names.watcher}: neither {names.hub} nor a gateway was heard for {limit_s:.0f} s."
        first = (
            "Whether the Hub is dead is not known: look at the network of that host first, then at the Hub."
        )
    found = {"summary": summary, "description": f"{first} docs/runbook.md has a section {name}."}
    if names.runbook:
        found["runbook_url"] = f"{names.runbook}#{name.lower()}"
    return found


def _common(every: list[dict[str, str]]) -> Mapping[str, str]:
    return {key: value for key, value in every[0].items() if all(one.get(key) == value for one in every)}


def _time(seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds, tz=timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    )
