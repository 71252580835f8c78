"""What is told when: once, hourly while it lasts, once when it is over."""

import json

import pytest

from hub_watch.notice import AGAIN_S, Names, Told, message, owed, wait_s
from hub_watch.verdict import SCRAPE, SIGN, SILENT, UNKNOWN, WELL

NAMES = Names("hub-01", "inf-01", "lab")
TOLD_SILENT = Told(SILENT, 900, 1000)


@pytest.mark.parametrize(
    ("told", "verdict", "now", "expected"),
    [
        (Told(), WELL, 1000, None),
        (Told(), None, 1000, None),
        (Told(), SILENT, 1000, Told(SILENT, 880, 1000)),
        (Told(), UNKNOWN, 1000, Told(UNKNOWN, 880, 1000)),
        (TOLD_SILENT, SILENT, 1000 + AGAIN_S - 1, None),
        (TOLD_SILENT, SILENT, 1000 + AGAIN_S, Told(SILENT, 900, 1000 + AGAIN_S)),
        # After a restart it is too early to say: what was told holds, and is told again.
        (TOLD_SILENT, None, 1000 + AGAIN_S - 1, None),
        (TOLD_SILENT, None, 1000 + AGAIN_S, Told(SILENT, 900, 1000 + AGAIN_S)),
        # A clock that was set back is no reason to be quiet.
        (TOLD_SILENT, SILENT, 500, Told(SILENT, 900, 500)),
        (TOLD_SILENT, WELL, 1200, Told(WELL, 880, 1200)),
        (TOLD_SILENT, UNKNOWN, 1200, None),
        (Told(UNKNOWN, 900, 1000), SILENT, 1200, Told(SILENT, 880, 1200)),
        (Told(UNKNOWN, 900, 1000), WELL, 1200, Told(WELL, 880, 1200)),
    ],
)
def test_what_is_owed(told: Told, verdict: str | None, now: float, expected: Told | None) -> None:
    assert owed(told, verdict, 880, now) == expected


def test_tries_that_fail_come_later_and_later_and_go_on() -> None:
    assert [wait_s(failures) for failures in (0, 1, 2, 5, 6, 7, 10_000)] == [0, 2, 4, 32, 60, 60, 60]


def test_a_silent_hub_is_told_as_alertmanager_tells() -> None:
    posted = message(Told(), TOLD_SILENT, NAMES, (SCRAPE, SIGN), 120)
    (alert,) = posted["alerts"]
    assert {"version", "groupKey", "status", "receiver", "groupLabels", "commonLabels", "alerts"} < set(
        posted
    )
    assert (posted["version"], posted["status"], alert["status"]) == ("4", "firing", "firing")
    assert posted["commonLabels"] == alert["labels"]
    assert alert["labels"] == {
        "alertname": "Mt5crsHubSilent",
        "severity": "critical",
        "host": "hub-01",
        "seen_from": "inf-01",
        "environment": "lab",
    }
    assert SCRAPE in alert["annotations"]["summary"]
    assert SIGN in alert["annotations"]["summary"]
    assert (alert["startsAt"], alert["endsAt"]) == ("1970-01-01T00:15:00Z", "0001-01-01T00:00:00Z")
    json.dumps(posted, allow_nan=False)


def test_the_end_has_the_fingerprint_of_the_beginning() -> None:
    begun = message(Told(), TOLD_SILENT, NAMES, (SCRAPE,), 120)["alerts"][0]
    ended = message(TOLD_SILENT, Told(WELL, 0, 1260), NAMES, (), 120)
    assert ended["status"] == "resolved"
    (alert,) = ended["alerts"]
    assert (alert["status"], alert["endsAt"]) == ("resolved", "1970-01-01T00:21:00Z")
    assert (alert["fingerprint"], alert["startsAt"]) == (begun["fingerprint"], begun["startsAt"])


def test_once_it_is_known_the_unknown_ends() -> None:
    posted = message(Told(UNKNOWN, 900, 1000), Told(SILENT, 900, 1200), NAMES, (SCRAPE, SIGN), 120)
    assert posted["status"] == "firing"
    assert [(alert["labels"]["alertname"], alert["status"]) for alert in posted["alerts"]] == [
        ("Mt5crsHubUnseen", "resolved"),
        ("Mt5crsHubSilent", "firing"),
    ]
    assert posted["commonLabels"] == {"host": "hub-01", "seen_from": "inf-01", "environment": "lab"}


def test_a_page_of_the_runbook_that_does_without_the_hub_is_linked() -> None:
    names = Names("hub-01", "inf-01", "lab", "https://wiki.example/runbook")
    posted = message(Told(), TOLD_SILENT, names, (SCRAPE,), 120)
    assert posted["alerts"][0]["annotations"]["runbook_url"] == "https://wiki.example/runbook#mt5crshubsilent"
