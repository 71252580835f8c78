"""Well, silent or unknown: by what was heard alone."""

import pytest

from hub_watch.verdict import SCRAPE, SIGN, SILENT, UNKNOWN, WELL, Heard, judge

LIMIT_S = 120.0


@pytest.mark.parametrize(
    ("heard", "verdict"),
    [
        (Heard(0, scrape=995, sign=981), WELL),
        (Heard(0, scrape=880, sign=880), WELL),
        (Heard(0, scrape=879, sign=999), SILENT),
        (Heard(0, scrape=999, sign=879), SILENT),
        (Heard(0, scrape=879, sign=879, network=True), SILENT),
        (Heard(0, scrape=879, sign=879, network=False), UNKNOWN),
        (Heard(0, scrape=879, sign=879, network=None), UNKNOWN),
        (Heard(0, network=True), SILENT),
        # The other one still comes: the network is there, whatever the gateway does.
        (Heard(0, scrape=999, network=False), SILENT),
        (Heard(950), None),
        (Heard(950, scrape=999), None),
        (Heard(950, scrape=999, sign=999), WELL),
    ],
)
def test_what_is_thought_of_what_was_heard(heard: Heard, verdict: str | None) -> None:
    assert judge(heard, 1000, LIMIT_S) == verdict


def test_what_is_missing_is_named_and_since_when() -> None:
    heard = Heard(100, scrape=700, sign=990)
    assert heard.late(1000, LIMIT_S) == (SCRAPE,)
    assert heard.quiet_since() == 700
    assert Heard(100).late(1000, LIMIT_S) == (SCRAPE, SIGN)
    assert Heard(100).quiet_since() == 100


def test_time_in_which_nobody_listened_is_no_silence() -> None:
    heard = Heard(0, scrape=100, sign=90, network=True)
    assert judge(heard, 700, LIMIT_S) == SILENT
    assert judge(heard.deaf(595), 700, LIMIT_S) == WELL
    assert judge(Heard(0).deaf(595), 700, LIMIT_S) is None
