"""Service levels follow from records; what has no record is said, and is no zero."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from mt5crs.hub import levels
from mt5crs.hub.store import Store
from tests.unit.hub.test_store import BOUNDS

NOW = 1_800_000_000.0
DAY = 86_400.0
EXPECTED = [("gtw-01", "gateway"), ("inf-01", "reconciler"), ("inf-01", "strategy")]


def reckoned(**of: Any) -> dict[str, dict[str, Any]]:
    given = {
        "since": NOW - 10 * DAY,
        "until": NOW,
        "expected": EXPECTED,
        "ups": {},
        "looked_s": 0.0,
        "fired": [],
        "deployments": [],
    }
    return levels.reckoned(**{**given, **of})


def alert(**of: Any) -> dict[str, Any]:
    return {
        "severity": "critical",
        "began": 100.0,
        "told": 105.0,
        "watched": 1,
        "over": 160.0,
        "false_alarm": None,
        **of,
    }


def test_nothing_recorded_is_no_data_everywhere_but_where_nothing_is_a_finding() -> None:
    found = reckoned()
    missing = found.pop("monitoring_coverage_percent")
    assert (missing["value"], missing["met"]) == (0.0, False)
    assert missing["missing"] == ["gateway of gtw-01", "reconciler of inf-01", "strategy of inf-01"]
    assert all("no_data" in level and "value" not in level for level in found.values()), found
    assert all("met" not in level for level in found.values())
    assert reckoned(deployments=None, no_deployments="nobody told")["deployment_success_percent"][
        "no_data"
    ] == ("nobody told")


def at(days_ago: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(NOW - days_ago * DAY))


def test_the_success_of_deployments_counts_those_that_ended() -> None:
    told = [
        {"started": at(1), "action": "deploy", "outcome": "changed"},
        {"started": at(2), "action": "deploy", "outcome": "failed"},
        {"started": at(3), "action": "deploy", "outcome": "changed"},
        {"started": at(4), "action": "deploy", "outcome": "undone"},
        {"started": at(0.1), "action": "deploy", "outcome": "running"},
        {"started": at(5), "action": "rollback", "outcome": "changed"},
        {"started": at(50), "action": "deploy", "outcome": "failed"},
        {"started": "nonsense", "action": "deploy", "outcome": "failed"},
    ]
    level = reckoned(deployments=told)["deployment_success_percent"]
    assert (level["value"], level["of"], level["met"]) == (50.0, 4, False)
    assert "partly" not in level
    few = reckoned(deployments=told[:2], most_deployments=2)["deployment_success_percent"]
    assert few["partly"].startswith("only the newest 2 are known")


def test_availability_and_coverage_are_of_what_the_inventory_has() -> None:
    ups = {("gtw-01", "gateway"): (1000, 999), ("inf-01", "strategy"): (1000, 1000), ("x", "node"): (9, 0)}
    found = reckoned(ups=ups, looked_s=9.5 * DAY)
    assert found["availability_percent"]["value"] == 99.95
    assert found["availability_percent"]["met"] is True
    assert found["monitoring_coverage_percent"]["value"] == pytest.approx(66.6667)
    assert found["monitoring_coverage_percent"]["missing"] == ["reconciler of inf-01"]
    assert 95 < found["watched_percent"]["value"] <= 100


def test_detection_recovery_and_accuracy() -> None:
    fired = [
        alert(),
        alert(severity="warning", told=120.0, false_alarm=1),
        alert(severity="info", told=9999.0, false_alarm=1),
        alert(told=4000.0, watched=0, over=None, false_alarm=0),
    ]
    found = reckoned(fired=fired)
    assert (found["detection_s"]["value"], found["detection_s"]["of"]) == (20.0, 2)
    assert (found["recovery_s"]["value"], found["recovery_s"]["partly"]) == (60.0, "1 not over yet")
    assert (found["alert_accuracy_percent"]["value"], found["alert_accuracy_percent"]["of"]) == (50.0, 2)
    assert found["alert_accuracy_percent"]["partly"] == "1 were not judged"
    assert (
        reckoned(fired=[alert()])["alert_accuracy_percent"]["no_data"] == "nobody has judged one of 1 alerts"
    )


def test_a_month_is_of_utc_and_one_to_come_is_refused() -> None:
    since, until = levels.month("202602", NOW)
    assert (time.gmtime(since)[:3], time.gmtime(until)[:3]) == ((2026, 2, 1), (2026, 3, 1))
    with pytest.raises(ValueError, match="has not begun"):
        levels.month("299901", NOW)


def test_the_store_keeps_looks_and_what_fired(tmp_path: Path) -> None:
    store = Store(tmp_path, BOUNDS)
    day = 20_000 * DAY
    for second in (0.0, 5.0, 10.0):
        store.keep_look(day + second, 5.0, {"gtw-01": {"gateway": second != 5.0}})
    store.keep_look(day - 5.0, 5.0, {"gtw-01": {"gateway": False}})
    assert store.ups(day, day + DAY) == {("gtw-01", "gateway"): (3, 2)}
    assert store.looked_s(day, day + DAY) == 15.0
    of = {"id": "a-1", "name": "A", "severity": "critical", "host": "h", "since": 50.0, "until": None}
    store.keep_alerts([{**of, "state": "pending"}], [], 52.0)
    assert store.fired(0.0, 1e9) == []
    store.keep_alerts([{**of, "state": "firing"}], [], 60.0, watched=True)
    store.keep_alerts([{**of, "state": "firing", "value": 2}], [], 65.0, watched=True)
    (fired,) = store.fired(0.0, 1e9)
    assert (fired["began"], fired["told"], fired["watched"], fired["over"]) == (50.0, 60.0, 1, None)
    store.acknowledge("a-1", 1, 66.0, "alice", "nothing", began=50.0, false_alarm=True)
    store.keep_alerts([{**of, "state": "resolved", "until": 90.0}], [], 90.0)
    (fired,) = store.fired(0.0, 1e9)
    assert (fired["over"], fired["false_alarm"], fired["by"]) == (90.0, 1, "alice")
    store.close()
