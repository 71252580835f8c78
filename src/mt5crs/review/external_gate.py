"""Gate 2: the external reviewer, asked about what the cache does not know, for as little as possible.

What cannot be asked is `not_asked`, never passed. Nothing that comes back can take a finding away.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from mt5crs.review import cache as caching
from mt5crs.review import prompt, providers, replies
from mt5crs.review.budget import Budget, BudgetError
from mt5crs.review.cache import Cache, Kept
from mt5crs.review.calling import Answer, CallError, LaterError, RefusedError, call
from mt5crs.review.decision import BLOCKING, Asked, ExternalResult, Mode
from mt5crs.review.model import Finding
from mt5crs.review.providers import Request
from mt5crs.review.replies import BadReplyError
from mt5crs.review.tree import File
from mt5crs.review.units import CHARACTERS_PER_TOKEN, Unit, batches, strongest, units
from mt5crs.settings.review import Model, Reviewer, ReviewSettings, loopback

LONGEST_WAIT_S: Final = 60.0
"""A provider that asks to wait longer counts as down."""
_MILLION: Final = 1_000_000
_USUAL_CHARACTERS_PER_TOKEN: Final = 4
"""As providers count; only where none has counted in this review."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence of a call that was made: nobody has it without having asked."""

    endpoint: str
    model: str
    """As the provider says."""
    request: str
    """SHA-256 of the body that was sent."""
    request_id: str
    tokens_in: int
    tokens_out: int
    price: float
    """US dollars."""
    seconds: float


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
        off: str = "",
        send: Callable[[Request, str, float], Answer] = call,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._off = off if settings.optimiser else "REVIEW_OPTIMISER is false"
        self._cache = None if self._off else cache
        self._budget = budget
        self._tool = tool
        self._send = send
        self._sleep = sleep
        self._chance = chance
        self._reviewers = [
            (reviewer, key)
            for reviewer, key in (
                (settings.reviewer, settings.api_key),
                (settings.fallback, settings.fallback_api_key),
            )
            if reviewer is not None and key
        ]
        # Who nobody vouches for spends nothing.
        self._down: set[int] = set() if trusted else set(range(len(self._reviewers)))
        self._reasons: list[str] = [] if trusted else ["the run is not trusted, so nobody is asked"]
        self._calls: list[Call] = []
        self._modes: set[str] = set()
        self._attempts = self._failed = self._dropped = self._sent = 0
        self._unknown = 0.0
        self._first_down: bool | None = None

    def ask(self, files: Sequence[File], withheld: AbstractSet[str] = frozenset()) -> Told:
        """Ask about files. `withheld`: files that must not leave this machine, since they hold a secret."""
        wanted, answers, made = self._planned([file for file in files if file.path not in withheld])
        cached = len(answers)
        self._modes |= {kept.mode for kept in answers.values()}
        for batch in made:
            answers |= self._batch(batch)
        self._reasons += [f"{path} holds a secret, so it is not sent" for path in sorted(withheld)]
        missing = [unit.path for unit in wanted if unit not in answers]
        if missing:
            count = len(set(missing))
            self._reasons.append(f"{count} file{'s' if count != 1 else ''} not looked at, {missing[0]} first")
        findings = [finding for kept in answers.values() for finding in kept.findings]
        return Told(
            result=self._result(findings, complete=not missing and not withheld),
            figures=self._figures(wanted, list(answers), cached),
            calls=self._calls,
            routes={unit.path: f"{unit.route}: {unit.reason}" for unit in wanted},
            reviewer_down=self._first_down,
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

    def _failed_optimiser(self, error: Exception) -> None:
        self._off = (
            f"the optimiser failed ({type(error).__name__}: {error}), so the review goes on without it"
        )
        self._cache = None

    def _result(self, findings: list[Finding], *, complete: bool) -> ExternalResult:
        blocking = any(finding.severity in BLOCKING for finding in findings)
        mode: Mode = "offline"
        if self._modes:
            mode = "live" if self._modes == {"live"} else "recorded"
        elif complete:
            mode = "live"  # nothing had to be asked
        state: Asked = "failed" if blocking else "passed" if complete else "not_asked"
        reasons = list(dict.fromkeys(self._reasons)) if state == "not_asked" else []
        return ExternalResult(state=state, mode=mode, findings=findings, reasons=reasons)

    def _cached(self, unit: Unit) -> Kept | None:
        if self._cache is None:
            return None
        for reviewer, _ in self._reviewers or self._unkeyed():
            kept = self._cache.get(self._key(unit, reviewer))
            if kept is not None:
                return kept
        return None

    def _unkeyed(self) -> Iterable[tuple[Reviewer, str]]:
        """Reviewers without a key cannot be asked; what they once said can be read."""
        pair = (self._settings.reviewer, self._settings.fallback)
        return [(reviewer, "") for reviewer in pair if reviewer is not None]

    def _key(self, unit: Unit, reviewer: Reviewer) -> str:
        model = _model(reviewer, unit)
        return caching.key(unit, reviewer.provider, model.name, self._settings.reply_tokens, self._tool)

    def _batch(self, batch: list[Unit]) -> dict[Unit, Kept]:
        if not self._reviewers:
            named = self._settings.reviewer is not None
            self._reasons.append("REVIEW_API_KEY is not set" if named else "REVIEW_REVIEWER is not set")
        for number, (reviewer, key) in enumerate(self._reviewers):
            if number in self._down:
                continue
            try:
                made = self._ask_reviewer(reviewer, key, batch)
            except BudgetError as error:
                self._reasons.append(str(error))
                return {}
            except BadReplyError as error:
                # Its other answers may be good; this question goes to the next one.
                self._reasons.append(f"{reviewer.endpoint}: {error}")
            except CallError as error:
                self._down.add(number)
                self._reasons.append(f"{reviewer.endpoint}: {error}")
                if reviewer is self._settings.reviewer:
                    self._first_down = True
            else:
                if reviewer is self._settings.reviewer:
                    self._first_down = False
                return made
        return {}

    def _ask_reviewer(self, reviewer: Reviewer, key: str, batch: list[Unit]) -> dict[Unit, Kept]:
        model = _model(reviewer, batch[0])
        request = providers.request(
            reviewer, model, prompt.INSTRUCTIONS, prompt.question(batch), self._settings.reply_tokens
        )
        attempt = 1
        while True:
            try:
                return self._attempt(reviewer, model, request, key, batch)
            except (LaterError, BadReplyError) as error:
                self._failed += 1
                wait_s = error.wait_s if isinstance(error, LaterError) else None
                if attempt >= self._settings.attempts or (wait_s or 0) > LONGEST_WAIT_S:
                    raise
                pause = self._settings.backoff_s * 2 ** (attempt - 1) * (0.5 + self._chance())
                self._sleep(max(pause, wait_s or 0))
                attempt += 1
            except RefusedError:
                self._failed += 1
                raise

    def _attempt(
        self, reviewer: Reviewer, model: Model, request: Request, key: str, batch: list[Unit]
    ) -> dict[Unit, Kept]:
        sent = msgspec.json.encode(request.body)
        worst = worst_price(model, len(sent), self._settings.reply_tokens)
        number = self._budget.reserve(worst)
        self._unknown += worst
        self._attempts += 1
        began = time.monotonic()
        try:
            answer = self._send(request, key, self._settings.timeout_s)
        except CallError as error:
            if not error.billed:
                self._budget.settle(number, 0.0)
                self._unknown -= worst
            raise
        # From here on the provider has worked: an answer that cannot be read keeps its reservation.
        reply = providers.reply(reviewer.provider, answer.document)
        price = (reply.tokens_in * model.input_price + reply.tokens_out * model.output_price) / _MILLION
        self._budget.settle(number, price)
        self._unknown -= worst
        self._sent += _characters(batch)
        evidence = Call(
            endpoint=request.url,
            model=reply.model[:100],
            request=hashlib.sha256(sent).hexdigest(),
            request_id=answer.request_id,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            price=price,
            seconds=round(time.monotonic() - began, 3),
        )
        self._calls.append(evidence)
        asked = prompt.names(batch)
        read = replies.read(reply.text, asked, f"external:{model.name}")
        self._dropped += read.dropped
        mode = "recorded" if loopback(reviewer.endpoint) else "live"
        self._modes.add(mode)
        made = {}
        for name, unit in asked.items():
            made[unit] = Kept(findings=read.findings[name], call=evidence.request, mode=mode, lasts_s=0)
            try:
                self._keep(unit, reviewer, made[unit])
            except Exception as error:
                self._failed_optimiser(error)
        return made

    def _keep(self, unit: Unit, reviewer: Reviewer, kept: Kept) -> None:
        if self._cache is None:
            return
        moved = self._cache.moved(unit)
        hours = self._settings.cache_moved_ttl_h if moved else self._settings.cache_ttl_h
        self._cache.put(self._key(unit, reviewer), msgspec.structs.replace(kept, lasts_s=hours * 3600))

    def _figures(self, wanted: list[Unit], answered: list[Unit], cached: int) -> Figures:
        price, asked = sum(each.price for each in self._calls), len(answered) - cached
        without = self._without(answered, asked)
        good = self._attempts - self._failed
        return Figures(
            api_calls=self._attempts,
            failed_calls=self._failed,
            files=len(wanted),
            cached_files=cached,
            asked_files=asked,
            cache_hit_rate=round(cached / len(wanted), 4) if wanted else 0.0,
            batch_efficiency=round(asked / (good * self._settings.batch_files), 4) if good else 0.0,
            cost_reduction_rate=round(1 - (price + self._unknown) / without, 4) if without > 0 else 0.0,
            tokens_in=sum(each.tokens_in for each in self._calls),
            tokens_out=sum(each.tokens_out for each in self._calls),
            price=round(price, 6),
            price_unknown=round(self._unknown, 6),
            price_without=round(without, 6),
            dropped_findings=self._dropped,
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
        counted = sum(each.tokens_in for each in self._calls)
        per_token = self._sent / counted if counted else _USUAL_CHARACTERS_PER_TOKEN
        reply = sum(each.tokens_out for each in self._calls) / max(1, asked)
        return sum(
            (_characters([unit]) / per_token * model.input_price + reply * model.output_price) / _MILLION
            for unit in answered
        )


def worst_price(model: Model, size: int, reply_tokens: int) -> float:
    """Dollars that a call with so many characters costs at most."""
    asked = size / CHARACTERS_PER_TOKEN * model.input_price
    return (asked + reply_tokens * model.output_price) / _MILLION


def _characters(batch: Sequence[Unit]) -> int:
    """Characters of a question, with the instructions before it."""
    return len(prompt.INSTRUCTIONS) + len(prompt.question(batch))


def _model(reviewer: Reviewer, unit: Unit) -> Model:
    models = {"strong": reviewer.strong, "medium": reviewer.medium, "cheap": reviewer.cheap}
    return models[unit.route]
