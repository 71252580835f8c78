"""What asking will cost, said before anything is asked. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from mt5crs.review.asking import MILLION, characters, model_of, worst_price
from mt5crs.review.units import USUAL_CHARACTERS_PER_TOKEN, Unit
from mt5crs.settings.review import Reviewer

REPLY_TOKENS: Final = 60
"""Of a reply, for each file: most have no finding, some have a few."""
ROOM: Final = 1.25
"""Budgets that are advised have so much room."""


class Estimate(NamedTuple):
    """Files, calls, and US dollars: what they will cost about, at most, and the dearest call at most."""

    files: int
    calls: int
    about: float
    at_most: float
    dearest: float

    def line(self) -> str:
        """For people, before the first call."""
        return (
            f"asking about {self.files} file{'s' if self.files != 1 else ''} in {self.calls} "
            f"call{'s' if self.calls != 1 else ''}: about ${self.about:.2f}, ${self.at_most:.2f} at most"
        )

    @property
    def budget(self) -> int:
        """A budget that it fits into, in whole dollars."""
        return math.ceil(self.about * ROOM + self.dearest)


def of(batches: Sequence[Sequence[Unit]], reviewer: Reviewer, reply_tokens: int) -> Estimate:
    """What asking a reviewer about these batches costs."""
    about, worst = 0.0, []
    for batch in batches:
        model, size = model_of(reviewer, batch[0]), characters(batch)
        asked = size / USUAL_CHARACTERS_PER_TOKEN * model.input_price
        about += (asked + REPLY_TOKENS * len(batch) * model.output_price) / MILLION
        worst.append(worst_price(model, size, reply_tokens))
    return Estimate(sum(map(len, batches)), len(batches), about, sum(worst), max(worst, default=0.0))


def too_little(
    wanted: Estimate, per_review: float, per_day: float, left: float, cheaper: float | None
) -> str:
    """Why nothing is asked, and what to do; empty: there is money enough.

    `left`: dollars of the day; `cheaper`: what it would cost with the optimiser, if that is off.
    """
    if wanted.about <= min(per_review, left):
        return ""
    advice = []
    if cheaper is not None:
        advice.append(f"switch the optimiser on (`mt5crs review activate`: about ${cheaper:.2f} then)")
    if wanted.about > per_review:
        advice.append(f"set REVIEW_BUDGET_REVIEW={max(wanted.budget, math.ceil(per_review))}")
    if wanted.about > left:
        spent = max(0.0, per_day - left)
        advice.append(f"set REVIEW_BUDGET_DAY={math.ceil(spent + wanted.budget)}")
    advice.append("or ask for as much as there is each day (--within-budget), the riskiest files first")
    return (
        f"{wanted.line()}; ${per_review:g} are allowed for a review and ${left:.2f} left today, so nothing "
        f"was asked: {', '.join(advice)}"
    )
