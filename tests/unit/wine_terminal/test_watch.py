"""A terminal is started when it does not run, ended when it does not answer, else left alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mt5crs.wine_terminal.watch import ANSWERS, STEADY_S, TRYING, Seen, Watch


def running(gateway: str = "", *, updating: bool = False) -> Seen:
    return Seen(there=True, running=True, updating=updating, gateway=gateway)


GONE = Seen(there=True, running=False, updating=False)


def test_one_that_is_there_and_does_not_run_is_started() -> None:
    watch = Watch(300)
    assert watch.decide(Seen(there=False, running=False, updating=False), 0).act == "wait"
    assert watch.decide(GONE, 1).act == "start"
    assert watch.decide(running("connected"), 3).act == "wait"


def test_one_that_ends_at_once_is_started_at_ever_longer_intervals() -> None:
    watch, began = Watch(300), []
    for second in range(1200):
        if watch.decide(GONE, second).act == "start":
            began.append(second)
    pauses = [later - earlier for earlier, later in pairwise(began)]
    assert pauses[0] >= 5
    assert pauses == sorted(pauses)
    assert max(pauses) <= 301


def test_one_that_ran_long_is_started_at_once() -> None:
    watch = Watch(300)
    assert watch.decide(GONE, 0).act == "start"
    assert watch.decide(running(), 1).act == "wait"
    assert watch.decide(GONE, STEADY_S + 1).act == "start"


def test_an_update_is_waited_for_and_its_terminal_taken_over() -> None:
    watch = Watch(10)
    assert watch.decide(GONE, 0).act == "start"
    watch.decide(running("connected"), 1)
    for second in range(2, 100):
        seen = Seen(there=second > 50, running=False, updating=True)
        assert watch.decide(seen, second).act == "wait"
    assert watch.decide(running("starting"), 100).act == "wait"
    assert watch.decide(running("starting"), 109).act == "wait"
    assert watch.decide(running("starting"), 110).act == "end"


@pytest.mark.parametrize("state", TRYING)
def test_one_that_does_not_answer_is_ended_and_given_more_time_each_time(state: str) -> None:
    watch, ended = Watch(10), []
    up = False
    for second in range(500):
        verdict = watch.decide(running(state) if up else GONE, second)
        if verdict.act == "end":
            ended.append(second)
            assert state in verdict.reason
        up = verdict.act == "start" or (up and verdict.act != "end")
    assert 10 <= ended[0] <= 12
    gaps = [later - earlier for earlier, later in pairwise(ended)]
    assert gaps == sorted(gaps)
    assert 120 <= gaps[-1] <= 500


@pytest.mark.parametrize("state", ["", "unknown", "a word of tomorrow", *ANSWERS])
def test_what_is_not_known_to_hang_is_never_ended(state: str) -> None:
    watch = Watch(10)
    watch.decide(GONE, 0)
    assert {watch.decide(running(state), second).act for second in range(1, 5000, 7)} == {"wait"}


def test_silence_counts_from_the_last_answer() -> None:
    watch = Watch(10)
    watch.decide(GONE, 0)
    for second in range(1, 100):
        state = "connected" if second % 9 == 0 else "hung"
        assert watch.decide(running(state), second).act == "wait"


def test_zero_ends_none() -> None:
    watch = Watch(0)
    watch.decide(GONE, 0)
    assert {watch.decide(running("hung"), second).act for second in range(1, 100_000, 50)} == {"wait"}
