"""Gate 2: the external reviewer, asked about what the cache does not know, for as little as possible.

What cannot be asked is `not_asked`, never passed. Nothing that comes back can take a finding away.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from mt5crs.review import cache as caching
from mt5crs.review import estimate
from mt5crs.review.asking import MILLION, Asker, Call, Outcome, characters, model_of
from mt5crs.review.budget import Budget, BudgetError
from mt5crs.review.cache import Cache, Kept
from mt5crs.review.calling import Answer, call
from mt5crs.review.decision import BLOCKING, Asked, ExternalResult, Mode
from mt5crs.review.model import Finding
from mt5crs.review.providers import Request
from mt5crs.review.tree import File
from mt5crs.review.units import USUAL_CHARACTERS_PER_TOKEN, Unit, batches, strongest, units
from mt5crs.settings.review import Reviewer, ReviewSettings


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a review cost, beside the price of asking the strong model about each file alone, every time."""

    api_calls: int = 0
    failed_calls: int = 0
    files: int = 0
    cached_files: int = 0
    asked_files: int = 0
    cache_hit_rate: float = 0.0
    batch_efficiency: float = 0.0
    """Files in a call, of those that fit."""
    cost_reduction_rate: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    price: float = 0.0
    price_unknown: float = 0.0
    """Reserved for calls whose end is not known: at most this much more was paid."""
    price_without: float = 0.0
    dropped_findings: int = 0
    damaged_cache: int = 0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What gate 2 came to, with its figures, calls and routes."""

    result: ExternalResult
    figures: Figures
    calls: list[Call]
    routes: dict[str, str]
    """File: who was asked, and why."""
    reviewer_down: bool | None = None
    """Whether the first reviewer was down; None: it was not asked."""
    without: str = ""
    """Why the optimiser was not used, or failed; empty: it was used."""


class ExternalGate:
    """Asks about one review. `send`, `sleep` and `chance` are the network, waiting and jitter.

    Before the first call `say` is told what all will cost. When the budget is too small for that nothing is
    asked, unless `within_budget` wants as much as there is money for.

    `off` says why the optimiser (cache, batches, routes) is not to be used. One that fails is left out for
    the rest of the review: that costs money, and no review.
    """

    def __init__(
        self,
        settings: ReviewSettings,
        cache: Cache | None,
        budget: Budget,
        tool: str,
        *,
        trusted: bool = True,
        within_budget: bool = False,
        say: Callable[[str], None] | None = None,
        off: str = "",
        send: Callable[[Request, str, float], Answer] = call,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._off = off if settings.optimiser else "REVIEW_OPTIMISER is false"
        self._cache = None if self._off else cache
        self._tool = tool
        self._budget = budget
        self._within_budget = within_budget or not trusted
        self._say = say
        self._asker = Asker(settings, budget, trusted=trusted, send=send, sleep=sleep, chance=chance, say=say)
        self._reasons: list[str] = [] if trusted else ["the run is not trusted, so nobody is asked"]
        self._outcomes: list[Outcome] = []
        self._modes: set[str] = set()

    def ask(self, files: Sequence[File], withheld: AbstractSet[str] = frozenset()) -> Told:
        """Ask about files. `withheld`: files that must not leave this machine, since they hold a secret."""
        wanted, answers, made = self._planned([file for file in files if file.path not in withheld])
        cached = len(answers)
        self._modes |= {kept.mode for kept in answers.values()}
        if self._affordable(made, files):
            self._outcomes = self._asker.ask(made, self._arrived)
        for outcome in self._outcomes:
            answers |= outcome.answers
            self._reasons += outcome.reasons
        self._reasons += [f"{path} holds a secret, so it is not sent" for path in sorted(withheld)]
        missing = [unit.path for unit in wanted if unit not in answers]
        if missing:
            count = len(set(missing))
            self._reasons.append(f"{count} file{'s' if count != 1 else ''} not looked at, {missing[0]} first")
        findings = [finding for kept in answers.values() for finding in kept.findings]
        return Told(
            result=self._result(findings, complete=not missing and not withheld),
            figures=self._figures(wanted, list(answers), cached),
            calls=self._calls(),
            routes={unit.path: f"{unit.route}: {unit.reason}" for unit in wanted},
            reviewer_down=self._asker.first_down,
            without=self._off,
        )

    def _planned(self, files: list[File]) -> tuple[list[Unit], dict[Unit, Kept], list[list[Unit]]]:
        """What is to be looked at, what is known of it, and the batches to ask about the rest."""
        most = self._settings.batch_tokens
        if not self._off:
            try:
                wanted = units(files, most)
                known = {unit: kept for unit in wanted if (kept := self._cached(unit)) is not None}
                rest = [unit for unit in wanted if unit not in known]
                return wanted, known, batches(rest, self._settings.batch_files, most)
            except Exception as error:
                self._failed_optimiser(error)
        wanted = units(files, most, strongest)
        return wanted, {}, [[unit] for unit in wanted]

    def _affordable(self, batches_: list[list[Unit]], files: Sequence[File]) -> bool:
        """Say what asking will cost, and whether there is money for it."""
        if not batches_ or not self._asker.reviewers:
            return True
        settings, (reviewer, _) = self._settings, self._asker.reviewers[0]
        wanted = estimate.of(batches_, reviewer, settings.reply_tokens)
        if self._say is not None:
            self._say(wanted.line())
        if self._within_budget:
            return True
        try:
            left = self._budget.left()
        except BudgetError as error:
            self._reasons.append(str(error))
            return False
        cheaper = None
        if self._off:
            with contextlib.suppress(Exception):  # it may be off since it is broken
                cheaper = self._optimised(files, reviewer).about
        why = estimate.too_little(wanted, settings.budget_review, settings.budget_day, left, cheaper)
        if why:
            self._reasons.append(why)
        return not why

    def _optimised(self, files: Sequence[File], reviewer: Reviewer) -> estimate.Estimate:
        most = self._settings.batch_tokens
        made = batches(units(files, most), self._settings.batch_files, most)
        return estimate.of(made, reviewer, self._settings.reply_tokens)

    def _failed_optimiser(self, error: Exception) -> None:
        self._off = (
            f"the optimiser failed ({type(error).__name__}: {error}), so the review goes on without it"
        )
        self._cache = None

    def _result(self, findings: list[Finding], *, complete: bool) -> ExternalResult:
        blocking = any(finding.severity in BLOCKING for finding in findings)
        mode: Mode = "offline"  # also when nothing had to be asked: nobody has vouched for anything
        if self._modes:
            mode = "live" if self._modes == {"live"} else "recorded"
        state: Asked = "failed" if blocking else "passed" if complete else "not_asked"
        reasons = list(dict.fromkeys(self._reasons)) if state == "not_asked" else []
        return ExternalResult(state=state, mode=mode, findings=findings, reasons=reasons)

    def _cached(self, unit: Unit) -> Kept | None:
        if self._cache is None:
            return None
        for reviewer, _ in self._asker.reviewers or self._unkeyed():
            kept = self._cache.get(self._key(unit, reviewer))
            if kept is not None:
                return kept
        return None

    def _unkeyed(self) -> Iterable[tuple[Reviewer, str]]:
        """Reviewers without a key cannot be asked; what they once said can be read."""
        pair = (self._settings.reviewer, self._settings.fallback)
        return [(reviewer, "") for reviewer in pair if reviewer is not None]

    def _key(self, unit: Unit, reviewer: Reviewer) -> str:
        model = model_of(reviewer, unit)
        return caching.key(unit, reviewer.provider, model.name, self._settings.reply_tokens, self._tool)

    def _arrived(self, outcome: Outcome) -> None:
        """Keep the answers of a batch."""
        for unit, kept in outcome.answers.items():
            self._modes.add(kept.mode)
            try:
                assert outcome.reviewer is not None  # noqa: S101  (whose answers they are)
                self._keep(unit, outcome.reviewer, kept)
            except Exception as error:
                self._failed_optimiser(error)

    def _calls(self) -> list[Call]:
        return [call for outcome in self._outcomes for call in outcome.calls]

    def _keep(self, unit: Unit, reviewer: Reviewer, kept: Kept) -> None:
        if self._cache is None:
            return
        moved = self._cache.moved(unit)
        hours = self._settings.cache_moved_ttl_h if moved else self._settings.cache_ttl_h
        self._cache.put(self._key(unit, reviewer), msgspec.structs.replace(kept, lasts_s=hours * 3600))

    def _figures(self, wanted: list[Unit], answered: list[Unit], cached: int) -> Figures:
        calls, asked = self._calls(), len(answered) - cached
        price = sum(each.price for each in calls)
        unknown = sum(each.unknown for each in self._outcomes)
        attempts = sum(each.attempts for each in self._outcomes)
        failed = sum(each.failed for each in self._outcomes)
        without, good = self._without(answered, asked), attempts - failed
        return Figures(
            api_calls=attempts,
            failed_calls=failed,
            files=len(wanted),
            cached_files=cached,
            asked_files=asked,
            cache_hit_rate=round(cached / len(wanted), 4) if wanted else 0.0,
            batch_efficiency=round(asked / (good * self._settings.batch_files), 4) if good else 0.0,
            cost_reduction_rate=round(1 - (price + unknown) / without, 4) if without > 0 else 0.0,
            tokens_in=sum(each.tokens_in for each in calls),
            tokens_out=sum(each.tokens_out for each in calls),
            price=round(price, 6),
            price_unknown=round(unknown, 6),
            price_without=round(without, 6),
            dropped_findings=sum(each.dropped for each in self._outcomes),
            damaged_cache=self._cache.damaged if self._cache is not None else 0,
        )

    def _without(self, answered: list[Unit], asked: int) -> float:
        """Dollars for asking the strong model about each unit alone that there is an answer about.

        Tokens are counted as the provider has counted them in this review, so that an estimate that is too
        large makes no saving; where nothing was asked nothing was paid, and the estimate does no harm.
        """
        if self._settings.reviewer is None:
            return 0.0
        model = self._settings.reviewer.strong
        calls = self._calls()
        counted = sum(each.tokens_in for each in calls)
        sent = sum(each.sent for each in self._outcomes)
        per_token = sent / counted if counted else USUAL_CHARACTERS_PER_TOKEN
        reply = sum(each.tokens_out for each in calls) / max(1, asked)
        return sum(
            (characters([unit]) / per_token * model.input_price + reply * model.output_price) / MILLION
            for unit in answered
        )
