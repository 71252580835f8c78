"""Which magic numbers an alert halts."""

from __future__ import annotations

import pytest

from mt5crs.hub.alerts import Fired
from mt5crs.hub.halt_policy import LONGEST_REASON, halts

POLICY = ["WS_DISCONNECTED", "CIRCUIT_BREAKER_OPEN", "Mt5crsLateFill"]
TRADERS = {("gtw-01", 1), ("gtw-01", 2), ("gtw-02", 3)}
HOSTS = {"inf-01": ("gtw-01", 1), "inf-02": ("gtw-01", 2), "inf-03": ("gtw-02", 3)}


def alert(state: str = "firing", since: str = "2026-01-02T03:04:05.6Z", **labels: str) -> Fired:
    return Fired(
        labels={"alertname": "Mt5crsSome", "severity": "critical", **labels},
        state=state,  # type: ignore[arg-type]
        since=since,
        value=1.0,
        summary="it happened",
        description="",
        runbook_url="",
    )


@pytest.mark.parametrize(
    ("labels", "halted"),
    [
        ({"code": "CIRCUIT_BREAKER_OPEN", "host": "gtw-01", "magic": "2"}, [("gtw-01", 2)]),
        ({"code": "WS_DISCONNECTED", "host": "gtw-01"}, [("gtw-01", 1), ("gtw-01", 2)]),
        ({"code": "WS_DISCONNECTED", "host": "inf-03"}, [("gtw-02", 3)]),
        ({"alertname": "Mt5crsLateFill", "host": "gtw-02"}, [("gtw-02", 3)]),
        # A magic number that is not of this gateway, or none at all: all that are traded there.
        ({"code": "CIRCUIT_BREAKER_OPEN", "host": "gtw-01", "magic": "9"}, [("gtw-01", 1), ("gtw-01", 2)]),
        ({"code": "LIVE_NO_FILLS", "host": "gtw-01", "magic": "2"}, []),
        ({"code": "WS_DISCONNECTED", "host": "hub-01"}, []),
        ({"code": "WS_DISCONNECTED"}, []),
        ({}, []),
    ],
)
def test_an_alert_halts_the_magic_numbers_it_is_about(
    labels: dict[str, str], halted: list[tuple[str, int]]
) -> None:
    found = halts([alert(**labels)], POLICY, TRADERS, HOSTS)
    assert [(each.gateway, each.magic) for each in found] == halted


def test_what_is_pending_and_who_only_checks_is_not_halted() -> None:
    firing = alert(code="WS_DISCONNECTED", host="gtw-01")
    pending = alert("pending", code="WS_DISCONNECTED", host="gtw-02")
    found = halts([firing, pending], POLICY, TRADERS, HOSTS, spared={("gtw-01", 1)})
    assert [(each.gateway, each.magic) for each in found] == [("gtw-01", 2)]


def test_no_policy_halts_nothing_and_an_alert_without_a_code_is_not_meant_by_an_empty_one() -> None:
    firing = [alert(code="WS_DISCONNECTED", host="gtw-01"), alert(host="gtw-01", code="")]
    assert halts(firing, [], TRADERS, HOSTS) == []
    assert halts(firing[1:], [""], TRADERS, HOSTS) == []


def test_the_reason_says_why_and_fits_and_an_occurrence_has_one_id() -> None:
    first = alert(code="WS_DISCONNECTED", host="inf-01")
    again = alert(code="WS_DISCONNECTED", host="inf-01", since="2026-01-02T04:00:00Z")
    (one,), (other,) = (halts([each], POLICY, TRADERS, HOSTS) for each in (first, again))
    assert one.reason == "alert WS_DISCONNECTED since 2026-01-02T03:04:05: it happened"
    assert one == halts([first], POLICY, TRADERS, HOSTS)[0]
    assert one.id != other.id
    long = Fired(**{**{name: getattr(first, name) for name in first.__struct_fields__}, "summary": "x" * 999})
    assert len(halts([long], POLICY, TRADERS, HOSTS)[0].reason) == LONGEST_REASON
