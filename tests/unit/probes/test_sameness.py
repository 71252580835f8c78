"""Comparing two observers whose states move: at the same event only, and never by chance."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt5crs.probes.sameness import Sameness, Sighting, sighting_of_health


def seen(seq: int, digest: str = "", **changes: Any) -> Sighting:
    """A sighting after event `seq`; the digest of a sound observer follows from the event."""
    content: dict[str, Any] = {"login": 1, "magic": 7, "key": ("stream", seq), "digest": digest or f"d{seq}"}
    return Sighting(**{**content, **changes})


def test_equal_once_no_newer_pair_differs_for_the_holding_time() -> None:
    sameness = Sameness(hold_s=1.0)
    sameness.running(seen(5), 0.0)
    sameness.standby(seen(4), 0.1)
    assert sameness.outcome(9.0) is None, "never seen at the same event"
    sameness.standby(seen(5), 9.1)
    assert sameness.outcome(10.0) is None
    outcome = sameness.outcome(10.2)
    assert outcome is not None
    assert (outcome.result, outcome.reason) == ("equal", "equal at event 5")
    assert outcome.digest_running == outcome.digest_standby == "d5"


def test_a_newer_pair_that_differs_undoes_an_equal_one() -> None:
    sameness = Sameness(hold_s=1.0, settle_s=3.0)
    for side in (sameness.running, sameness.standby):
        side(seen(1), 0.0)
    items = {"position 3": "BUY 0.1 EURUSD"}
    sameness.running(seen(2, "aa", items=items), 0.5)
    sameness.standby(seen(2, "bb", items={"order 9": "BUY_LIMIT"}), 0.6)
    assert sameness.outcome(3.5) is None, "the other one's book may have been read a moment before its events"
    outcome = sameness.outcome(3.7)
    assert outcome is not None
    assert outcome.result == "differ"
    assert outcome.differences == (
        "the running one holds 1 positions and orders, the standby one 1",
        "order 9 (BUY_LIMIT) is held by the standby one only",
        "position 3 (BUY 0.1 EURUSD) is held by the running one only",
    )


def test_an_older_pair_that_comes_late_decides_nothing() -> None:
    sameness = Sameness(hold_s=1.0, settle_s=1.0)
    sameness.running(seen(1, "old"), 0.0)
    sameness.running(seen(2), 0.1)
    sameness.standby(seen(2), 0.2)
    sameness.standby(seen(1, "other"), 0.3)
    outcome = sameness.outcome(5.0)
    assert outcome is not None
    assert outcome.result == "equal"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"magic": 8}, "magic number: the running one has 7, the standby one 8"),
        ({"login": 2}, "account: the running one has 1, the standby one 2"),
    ],
)
def test_another_book_differs_at_once_whatever_is_known_of_it(change: dict[str, int], said: str) -> None:
    sameness = Sameness()
    sameness.running(seen(1), 0.0)
    sameness.standby(replaced(seen(1), digest="", **change), 0.0)
    outcome = sameness.outcome(0.0)
    assert outcome is not None
    assert (outcome.result, outcome.differences) == ("differ", (said,))


def replaced(sighting: Sighting, **changes: Any) -> Sighting:

    return msgspec.structs.replace(sighting, **changes)


def test_when_time_is_up_the_one_that_does_not_know_is_named() -> None:
    sameness = Sameness()
    assert "running one has said nothing" in sameness.give_up(20).reason
    sameness.running(seen(1), 0.0)
    assert "standby one has said nothing" in sameness.give_up(20).reason
    sameness.standby(replaced(seen(1), digest="", reason="syncing: no answer"), 1.0)
    assert "standby one does not know its state: syncing: no answer" in sameness.give_up(20).reason
    sameness.standby(seen(2), 2.0)
    assert "never seen at the same event" in sameness.give_up(20).reason
    sameness.standby(seen(2, key=("elsewhere", 2)), 3.0)
    outcome = sameness.give_up(20)
    assert (outcome.result, outcome.reason) == ("differ", "they follow different gateways")


def test_without_numbered_events_equal_counts_and_a_difference_proves_nothing() -> None:
    sameness = Sameness(hold_s=1.0, settle_s=3.0)
    sameness.running(seen(0, "aa", numbered=False), 0.0)
    sameness.standby(seen(0, "bb", numbered=False), 0.0)
    assert sameness.outcome(15.0) is None
    outcome = sameness.give_up(20)
    assert (outcome.result, "does not number its events" in outcome.reason) == ("unknown", True)
    sameness.standby(seen(0, "aa", numbered=False), 16.0)
    later = sameness.outcome(17.0)
    assert later is not None
    assert later.result == "equal"


def test_a_gateway_that_restarts_begins_anew() -> None:
    sameness = Sameness(hold_s=1.0)
    for side in (sameness.running, sameness.standby):
        side(seen(500), 0.0)
        side(seen(1, "new", key=("next", 1)), 0.5)
    outcome = sameness.outcome(2.0)
    assert outcome is not None
    assert (outcome.result, outcome.digest_running) == ("equal", "new")


def test_strategy_of_an_older_release_says_so() -> None:
    assert "does not publish its digest" in sighting_of_health({"healthy": True, "state": "ready"}).reason


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.floats(0, 0.5)), max_size=60), st.integers(0, 40)
)
def test_sound_observers_never_differ_and_a_wrong_one_is_never_equal_beyond_its_fault(
    steps: list[tuple[bool, int, float]], wrong_from: int
) -> None:
    """`wrong_from` 0: sound. Otherwise the standby's digests are wrong from that event on."""
    sameness, at = Sameness(hold_s=1.0, settle_s=3.0), 0.0
    both: set[int] = set()
    sides: tuple[set[int], set[int]] = (set(), set())
    for runs, seq, passed in steps:
        at += passed
        if runs:
            sameness.running(seen(seq), at)
        else:
            sameness.standby(seen(seq, f"wrong{seq}" if wrong_from and seq >= wrong_from else ""), at)
        sides[0 if runs else 1].add(seq)
        both = sides[0] & sides[1]
    outcome = sameness.outcome(at + 10.0)
    if not both:
        assert outcome is None
    else:
        assert outcome is not None
        assert outcome.result == ("differ" if wrong_from and max(both) >= wrong_from else "equal")
