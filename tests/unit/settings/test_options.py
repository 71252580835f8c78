"""Options of a strategy against what its class declares."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mt5crs.settings.options import Option, complete, from_document, to_document
from mt5crs.strategy.api import Strategy

DECLARED = {
    "level": Option("number", "Price above which it buys.", gt=0),
    "hold_s": Option("integer", "How long a position is held, in seconds.", default=60, ge=1, le=3600),
    "mode": Option("text", "How it enters.", default="fast", choices=("fast", "slow")),
    "symbols": Option("list", "What it looks at.", default=[], max_length=2),
    "dry": Option("boolean", "Decide only.", default=False),
}


def test_what_is_not_given_has_its_default() -> None:
    values, wrong = complete(DECLARED, {"level": 1, "mode": "slow"})
    assert wrong == []
    assert values == {"level": 1.0, "hold_s": 60, "mode": "slow", "symbols": [], "dry": False}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "option level is missing, expected a number above 0. Price above which it buys."),
        ({"level": 0}, "option level is 0, expected a number above 0"),
        ({"level": "1"}, "option level is '1', expected a number above 0"),
        ({"level": 1, "hold": 1}, "there is no option hold; did you mean hold_s?"),
        ({"level": 1, "zzz": 1}, "there is no option zzz; remove it"),
        ({"level": 1, "hold_s": 3601}, "option hold_s is 3601, expected a whole number from 1 to 3600"),
        ({"level": 1, "hold_s": 1.5}, "option hold_s is 1.5"),
        ({"level": 1, "hold_s": True}, "option hold_s is True"),
        ({"level": 1, "mode": "medium"}, "option mode is 'medium', expected one of fast, slow"),
        ({"level": 1, "symbols": ["A", "B", "C"]}, "a list of at most 2 entries"),
        ({"level": 1, "dry": "no"}, "option dry is 'no', expected true or false"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_expected(given: dict[str, Any], says: str) -> None:
    _, (wrong,) = complete(DECLARED, given)
    assert says in wrong


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert len(complete(DECLARED, {"holds": 1, "hold_s": 0, "dry": 1})[1]) == 4


def test_a_declaration_reads_back_as_it_was() -> None:
    document = msgspec.json.decode(msgspec.json.encode(to_document(DECLARED)))
    assert from_document(document) == DECLARED


def test_a_strategy_is_given_its_options_complete_or_not_made() -> None:
    class Mine(Strategy):
        known_options = DECLARED

    assert Mine({"level": 2}).options["hold_s"] == 60
    with pytest.raises(
        ValueError, match=r"there is no option levl; did you mean level\?; option level is missing"
    ):
        Mine({"levl": 2})
    assert Strategy({"anything": 1}).options == {"anything": 1}, "one that declares nothing takes everything"
