"""A host leaves when nothing speaks against it; what is not known speaks against it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from deploy.decommission.decision import Held, Leaving, refusals

NOTHING = Held((), (), ())
FREE = Leaving("inf-02", "gtw-01", 202402, NOTHING, answers=None, deploying=None)


def against(of: Leaving, *, hand_over: str | None = None, lost: bool = False) -> list[str]:
    return list(refusals(of, hand_over=hand_over, lost=lost))


def test_nothing_speaks_against_a_host_that_holds_nothing() -> None:
    assert against(FREE) == []
    assert against(replace(FREE, answers="no route"), lost=True) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"held": "it does not answer"}, "unknown: gtw-01 says: it does not answer"),
        ({"held": Held((7,), (), ())}, "1 open position, 0 working orders, and no other host trades it"),
        ({"held": Held((), (8, 9), ())}, "0 open positions, 2 working orders"),
        ({"held": Held((), (), ("a",))}, r"unresolved \(a\).*resolve"),
        ({"answers": "no route"}, r"does not answer \(no route\).*--lost"),
        ({"instances": ("inf-02-trend",)}, "others run on its machine: decommission inf-02-trend first"),
        ({"deploying": "ann deploys now"}, "ann deploys now; wait"),
    ],
)
def test_each_of_these_does(change: dict[str, Any], why: str) -> None:
    (told,) = against(replace(FREE, **change))
    assert re.search(why, told), told


def test_open_positions_need_somebody_to_look_after_them() -> None:
    holds = replace(FREE, held=Held((7,), (), ()))
    assert against(holds, hand_over="ann") == []
    assert against(replace(holds, successors=("inf-03",))) == []
    # What nobody knows the state of is handed over to nobody.
    assert against(replace(FREE, held=Held((), (), ("a",))), hand_over="ann") != []


def test_a_host_that_answers_is_not_lost() -> None:
    assert "answers, so it is not lost" in against(FREE, lost=True)[0]


def test_everything_is_told_at_once() -> None:
    assert len(against(replace(FREE, held="x", answers="y", deploying="z"))) == 3
