"""How often an alert began, since when, whether it is over: from what Prometheus says each time."""

from __future__ import annotations

from typing import Any

import msgspec

from mt5crs.hub import alerts
from mt5crs.hub.alerts import Fired, advance, key_of, shown

FIRED = Fired(
    labels={"alertname": "Mt5crsGatewaySilent", "host": "gtw-01", "severity": "critical"},
    state="firing",
    since="2026-01-02T03:04:05.123456789Z",
    value=0.0,
    summary="gtw-01: it does not answer.",
    description="Look.",
    runbook_url="http://hub/runbook#x",
)


def after(kept: dict[str, Any], fired: list[Fired], now: float = 1000.0) -> dict[str, Any]:
    changed, gone, _ = advance(kept, fired, now, 100.0)
    new = {**kept, **{each["id"]: each for each in changed}}
    return {name: each for name, each in new.items() if name not in gone}


def test_an_alert_fires_is_over_and_fires_again() -> None:
    kept = after({}, [FIRED])
    (alert,) = kept.values()
    assert (alert["state"], alert["count"], alert["since"]) == ("firing", 1, 1767323045.123)
    assert (alert["host"], alert["severity"]) == ("gtw-01", "critical")
    assert advance(kept, [FIRED], 1001.0, 100.0) == ([], [], 0)  # nothing new
    over = after(kept, [], 1005.0)
    (alert,) = over.values()
    assert (alert["state"], alert["until"], alert["count"]) == ("resolved", 1005.0, 1)
    again = after(over, [msgspec.structs.replace(FIRED, since="2026-01-02T04:00:00Z")], 1010.0)
    (alert,) = again.values()
    assert (alert["state"], alert["until"], alert["count"]) == ("firing", None, 2)
    assert after(over, [], 1200.0) == {}, "what has been over for long is forgotten"


def test_what_never_fired_is_forgotten() -> None:
    kept = after({}, [msgspec.structs.replace(FIRED, state="pending")])
    assert [each["count"] for each in kept.values()] == [0]
    assert after(kept, []) == {}


def test_silences_are_found_by_the_same_id_with_the_labels_that_prometheus_adds() -> None:
    with_external = {**FIRED.labels, "environment": "lab"}
    assert key_of(with_external) == key_of(FIRED.labels)
    kept = after({}, [FIRED])
    assert shown(kept.values(), {key_of(with_external): True})["alerts"][0]["silenced"] is True
    assert shown(kept.values(), {})["alerts"][0]["silenced"] is False
    assert shown(kept.values(), None)["alerts"][0]["silenced"] is None, "unknown is not none"


def test_far_too_many_alerts_are_counted_not_kept() -> None:
    many = [
        msgspec.structs.replace(FIRED, labels={**FIRED.labels, "host": f"h{n}"})
        for n in range(alerts.MOST_KEPT + 7)
    ]
    changed, _, left_out = advance({}, many, 1000.0, 100.0)
    assert (len(changed), left_out) == (alerts.MOST_KEPT, 7)
    told = shown(changed, None, left_out)
    assert len(told["alerts"]) == alerts.MOST_SHOWN
    assert told["left_out"] == len(many) - alerts.MOST_SHOWN


def test_the_worst_that_fires_comes_first() -> None:
    warning = msgspec.structs.replace(FIRED, labels={**FIRED.labels, "severity": "warning"})
    pending = msgspec.structs.replace(FIRED, state="pending", labels={"alertname": "A"})
    kept = after({}, [pending, warning, FIRED])
    order = [(each["state"], each["severity"]) for each in shown(kept.values(), None)["alerts"]]
    assert order == [("firing", "critical"), ("firing", "warning"), ("pending", "")]
