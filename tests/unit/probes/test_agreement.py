"""Two tapes compared: what agrees, what differs, and what is said when there is nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from mt5crs.probes.agreement import Agreement, Terms, Verdict, Word, judge, percent
from mt5crs.service import exits
from mt5crs.strategy.tape import BEGAN, JOINING, Call, Decision, TapeReader, TapeWriter, before

_ids = itertools.count()
RULE = Terms(window_s=60, agreement_percent=95, least_decisions=2, promotion="rule")


def order(kind: Any = "MARKET", side: Any = "BUY", volume: float = 0.1, **more: Any) -> Decision:
    given: dict[str, Any] = {"where": "s.py:1", **more}
    return Decision(
        id=str(next(_ids)),
        at_ms=0,
        kind=kind,
        symbol=given.pop("symbol", "EURUSD"),
        side=side,
        volume=volume,
        **given,
    )


def call(number: int, *decisions: Decision, at_ms: int | None = None, own_s: float = 0.001) -> Call:
    when = number * 1000 if at_ms is None else at_ms
    return Call("run", number, when, "on_timer", decisions=decisions, own_s=own_s)


def compared(running: list[Call], new: list[Call], tolerance_s: float = 1.5) -> Agreement:
    found = Agreement(tolerance_s)
    found.take_running(running)
    found.take_new(new)
    found.end()
    return found


def test_the_same_callback_by_callback() -> None:
    found = compared([call(1, order()), call(2)], [call(1, order()), call(2)])
    assert (found.counts["same"], found.decisions, found.ratio, found.calls) == (1, 1, 1.0, 2)
    assert found.as_json()["rows_left_out"] == 0


@pytest.mark.parametrize(
    ("running", "new", "what"),
    [
        (order(volume=0.1), order(volume=0.2), "volume"),
        (order(sl=1.05), order(sl=1.06), "price"),
        (order(sl=1.05), order(), "price"),
        (order("LIMIT", price=1.0), order("LIMIT", price=1.1), "price"),
        (order(sl=1.05), order(sl=1.05 + 1e-12), "same"),
        (order("CLOSE", ticket=7), order("CLOSE", ticket=7), "same"),
        (order(max_slippage_points=10), order(max_slippage_points=20), "same"),
    ],
)
def test_what_both_decided(running: Decision, new: Decision, what: Any) -> None:
    assert compared([call(1, running)], [call(1, new)]).counts == {what: 1}


@pytest.mark.parametrize(
    "other", [order(side="SELL"), order(symbol="USDJPY"), order("LIMIT", price=1.0), order("CLOSE", ticket=8)]
)
def test_two_that_are_not_the_same_order_are_two_differences(other: Decision) -> None:
    assert compared([call(1, order())], [call(1, other)]).counts == {"only_running": 1, "only_new": 1}


def test_one_decision_is_matched_once() -> None:
    assert compared([call(1, order())], [call(1, order(), order())]).counts == {"same": 1, "only_new": 1}


@pytest.mark.parametrize(("later", "what"), [(2, {"late": 1}), (4, {"only_running": 1, "only_new": 1})])
def test_a_decision_may_come_soon_before_or_after(later: int, what: dict[str, int]) -> None:
    numbers = range(1, 6)
    for first, second in ((1, later), (later, 1)):
        running = [call(n, *([order()] if n == first else [])) for n in numbers]
        new = [call(n, *([order()] if n == second else [])) for n in numbers]
        found = compared(running, new)
        assert found.counts == what
        late = [row["late_s"] for row in found.as_json()["rows"] if row["what"] == "late"]
        assert late in ([], [second - first])


def test_what_the_new_one_was_not_in_time_for_is_not_agreement() -> None:
    found = compared([call(1, order()), call(2, order())], [call(1, order())])
    assert found.counts == {"same": 1, "only_running": 1}


def test_callbacks_of_other_times_are_not_compared() -> None:
    found = Agreement(1)
    found.take_running([Call("run", 0, 0, BEGAN), call(5, order())])
    found.take_new([Call("run", JOINING, 0, "on_start", decisions=(order(), order())), call(4, order())])
    found.take_new([call(5, order())])
    found.end()
    told = found.as_json()
    assert (told["before"], told["not_compared"], told["same"], told["decisions"]) == (2, 1, 1, 1)


def test_what_is_kept_is_bounded_and_said() -> None:
    numbers = range(1, 1001)
    found = compared([call(n, order()) for n in numbers], [call(n, order()) for n in numbers])
    told = found.as_json()
    assert (told["same"], len(told["rows"]), told["rows_left_out"]) == (1000, 200, 800)


@pytest.mark.parametrize(
    ("agreeing", "others", "terms", "word", "status", "said"),
    [
        (20, 0, RULE, None, exits.OK, "20 of 20 decisions agree (100.0 %)"),
        (19, 1, RULE, None, exits.OK, "19 of 20 decisions agree (95.0 %), 1 of the running version only"),
        (18, 2, RULE, None, exits.FAILED, "95 % were wanted; 18 of 20"),
        (1, 0, RULE, None, exits.INCONCLUSIVE, "2 decisions were wanted; 1 of 1"),
        (0, 0, RULE, None, exits.INCONCLUSIVE, "no decisions in the window, so nothing is known"),
        (
            9,
            0,
            Terms(60, 95, 1, "command"),
            None,
            exits.INCONCLUSIVE,
            "nobody promoted it within the window of 60 s",
        ),
        (0, 9, RULE, Word("promote", "ann"), exits.OK, "promoted by ann; 0 of 9"),
        (9, 0, RULE, Word("drop", "ann"), exits.INCONCLUSIVE, "dropped by ann; 9 of 9"),
        (0, 0, Terms(60, 0, 1, "rule"), None, exits.INCONCLUSIVE, "no decisions in the window"),
    ],
)
def test_who_goes_on(
    agreeing: int, others: int, terms: Terms, word: Word | None, status: int, said: str
) -> None:
    numbers = range(1, agreeing + others + 1)
    found = compared(
        [call(n, order()) for n in numbers], [call(n, *([order()] if n <= agreeing else [])) for n in numbers]
    )
    assert judge(found, terms, word) == Verdict(status, judge(found, terms, word).reason)
    assert judge(found, terms, word).reason.startswith(said)


def test_what_is_not_all_is_never_shown_as_all() -> None:
    assert (percent(1.0), percent(0.99999), percent(0.0)) == ("100.0 %", "99.9 %", "0.0 %")


def test_a_tape_is_bounded_and_read_across_its_end(tmp_path: Path) -> None:
    path = tmp_path / "tape"
    reader = TapeReader(path)
    assert reader.read() == []
    writer = TapeWriter(path, most_bytes=1000)
    seen: list[int] = []
    for number in range(1, 200):
        writer.write(call(number, order()))
        seen += [one.number for one in reader.read()]
    writer.close()
    reader.close()
    assert seen == list(range(1, 200))
    assert path.stat().st_size + before(path).stat().st_size <= 2000


def test_what_comes_while_a_tape_ends_is_read(tmp_path: Path) -> None:
    """The writer goes on to another file just after the reader has read to the end of this one."""
    path = tmp_path / "tape"
    writer = TapeWriter(path, most_bytes=200)
    later = [call(2), call(3), call(4)]

    class Racing(TapeReader):
        def _moved_on(self) -> bool:
            while later:
                writer.write(later.pop(0))
            return super()._moved_on()

    writer.write(call(1))
    assert [one.number for one in Racing(path).read()] == [1, 2, 3, 4]
    assert before(path).exists()


def test_half_a_line_and_foreign_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "tape"
    writer = TapeWriter(path)
    writer.write(call(1))
    with path.open("ab") as file:
        file.write(b'{"run": 3}\nnot JSON\n{"run": "run", "number"')
    reader = TapeReader(path)
    assert [one.number for one in reader.read()] == [1]
    with path.open("ab") as file:
        file.write(b': 2, "at_ms": 5, "callback": "on_timer"}\n')
    assert [one.number for one in reader.read()] == [2]
