"""Asking reviewers about batches, several at a time, within the budget.

What comes of it is told in the order of the batches, whichever answer came first; and money is reserved in
that order, so that the same answers make the same verdict, whether they are asked for together or not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Final

import msgspec

from mt5crs.review import prompt, providers, replies
from mt5crs.review.budget import Budget, BudgetError
from mt5crs.review.cache import Kept
from mt5crs.review.calling import Answer, CallError, LaterError, RefusedError
from mt5crs.review.providers import Request
from mt5crs.review.replies import BadReplyError
from mt5crs.review.units import CHARACTERS_PER_TOKEN, Unit
from mt5crs.settings.review import Model, Reviewer, ReviewSettings, loopback

LONGEST_WAIT_S: Final = 60.0
"""A provider that asks to wait longer counts as down."""
MILLION: Final = 1_000_000


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


@dataclasses.dataclass
class Outcome:
    """What asking about one batch came to."""

    answers: dict[Unit, Kept] = dataclasses.field(default_factory=dict)
    reviewer: Reviewer | None = None
    """Who answered."""
    calls: list[Call] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)
    """Why somebody did not answer, a sentence each."""
    attempts: int = 0
    failed: int = 0
    dropped: int = 0
    """Findings that quote nothing."""
    sent: int = 0
    """Characters of the questions that were answered."""
    unknown: float = 0.0
    """Dollars that are reserved for calls whose end is not known."""


class Purse:
    """The budget, for calls that are under way together.

    Who finds too little left waits for those under way: they cost less than what is set aside for them. First
    reservations are made in the order of the batches.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._changed = threading.Condition()
        self._under_way = 0
        self._turn = 0

    def reserve(self, dollars: float, turn: int) -> int:
        """Set money aside for a call of the batch with this number, after those before it have.

        :raises BudgetError: not enough is left, and nothing is under way that might leave some
        """
        with self._changed:
            self._changed.wait_for(lambda: self._turn >= turn)
            try:
                while True:
                    try:
                        number = self._budget.reserve(dollars)
                    except BudgetError:
                        if not self._under_way:
                            raise
                        self._changed.wait()
                    else:
                        self._under_way += 1
                        return number
            finally:
                self._passed(turn)

    def settle(self, number: int, dollars: float | None) -> None:
        """Say what a call has cost in the end; None: that is not known, and the reservation stays.

        :raises BudgetError: it cannot be written down
        """
        with self._changed:
            self._under_way -= 1
            try:
                if dollars is not None:
                    self._budget.charge(number, dollars)
            finally:
                self._changed.notify_all()

    def done(self, turn: int) -> None:
        """The batch with this number makes no further call."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn >= turn)
            self._passed(turn)

    def _passed(self, turn: int) -> None:
        self._turn = max(self._turn, turn + 1)
        self._changed.notify_all()


class Asker:
    """Asks about the batches of a review. `send`, `sleep`, `chance` are the network, waiting, jitter."""

    def __init__(
        self,
        settings: ReviewSettings,
        budget: Budget,
        *,
        trusted: bool,
        send: Callable[[Request, str, float], Answer],
        sleep: Callable[[float], None],
        chance: Callable[[], float],
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._say = say
        self._ended = threading.Event()
        self._purse = Purse(budget)
        self._send = send
        self._sleep = sleep
        self._chance = chance
        self.reviewers = [
            (reviewer, key)
            for reviewer, key in (
                (settings.reviewer, settings.api_key),
                (settings.fallback, settings.fallback_api_key),
            )
            if reviewer is not None and key
        ]
        self._trusted = trusted
        self._down: set[int] = set()
        self._answered: set[int] = set()

    @property
    def first_down(self) -> bool | None:
        """Whether the first reviewer was down; None: it was not asked, or its answers were no answers."""
        asked = [number for number, (each, _) in enumerate(self.reviewers) if each is self._settings.reviewer]
        if any(number in self._down for number in asked):
            return True
        return False if any(number in self._answered for number in asked) else None

    def ask(self, batches: Sequence[list[Unit]], arrived: Callable[[Outcome], None]) -> list[Outcome]:
        """Ask about every batch, `calls_at_once` at a time; what came of each, in their order.

        The first is asked about alone: a reviewer that is down is found out once. `arrived` is told each as
        it comes, by the caller's own thread: a paid answer can be kept although the review dies.
        """
        if not batches:
            return []
        first = self._batch(0, batches[0])
        arrived(first)
        rest = batches[1:]
        with ThreadPoolExecutor(self._settings.calls_at_once) as pool:
            asked = [pool.submit(self._batch, turn, batch) for turn, batch in enumerate(rest, 1)]
            left = set(asked)
            try:
                for each in as_completed(asked):
                    left.remove(each)
                    arrived(each.result())
            except BaseException:  # Ctrl-C: what was not begun is not asked, nor anything again
                self._ended.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._wait_for([each for each in left if not each.cancelled()], arrived)
                raise
        return [first, *(each.result() for each in asked)]

    def _wait_for(self, under_way: Sequence[Future[Outcome]], arrived: Callable[[Outcome], None]) -> None:
        """Keep the answers of calls that cannot be taken back: they are paid for."""
        if not under_way:
            return
        count = len(under_way)
        if self._say is not None:
            self._say(f"no more is asked; waiting for {count} call{'s' if count != 1 else ''} under way")
        for each in as_completed(under_way):
            arrived(each.result())

    def _batch(self, turn: int, batch: list[Unit]) -> Outcome:
        made = Outcome()
        if not self.reviewers:
            named = self._settings.reviewer is not None
            made.reasons.append("REVIEW_API_KEY is not set" if named else "REVIEW_REVIEWER is not set")
        try:
            # Who nobody vouches for spends nothing.
            for number, (reviewer, key) in enumerate(self.reviewers if self._trusted else ()):
                if self._ended.is_set():
                    break
                if number not in self._down and self._asked(number, reviewer, key, batch, turn, made):
                    break
        finally:
            self._purse.done(turn)
        return made

    def _asked(
        self, number: int, reviewer: Reviewer, key: str, batch: list[Unit], turn: int, made: Outcome
    ) -> bool:
        """Whether the question is settled, with or without an answer, so that nobody else is asked."""
        try:
            made.answers = self._ask_reviewer(reviewer, key, batch, turn, made)
        except BudgetError as error:
            made.reasons.append(str(error))
            return True
        except BadReplyError as error:
            # Its other answers may be good; this question goes to the next one.
            made.reasons.append(f"{reviewer.endpoint}: {error}")
            return False
        except CallError as error:
            self._down.add(number)
            made.reasons.append(f"{reviewer.endpoint}: {error}")
            return False
        made.reviewer = reviewer
        self._answered.add(number)
        return True

    def _ask_reviewer(
        self, reviewer: Reviewer, key: str, batch: list[Unit], turn: int, made: Outcome
    ) -> dict[Unit, Kept]:
        model = model_of(reviewer, batch[0])
        request = providers.request(
            reviewer, model, prompt.INSTRUCTIONS, prompt.question(batch), self._settings.reply_tokens
        )
        attempt = 1
        while True:
            try:
                return self._attempt(reviewer, model, request, key, batch, turn, made)
            except (LaterError, BadReplyError) as error:
                made.failed += 1
                wait_s = error.wait_s if isinstance(error, LaterError) else None
                last = attempt >= self._settings.attempts or self._ended.is_set()
                if last or (wait_s or 0) > LONGEST_WAIT_S:
                    raise
                pause = self._settings.backoff_s * 2 ** (attempt - 1) * (0.5 + self._chance())
                self._sleep(max(pause, wait_s or 0))
                if self._ended.is_set():
                    raise
                attempt += 1
            except RefusedError:
                made.failed += 1
                raise

    def _attempt(
        self,
        reviewer: Reviewer,
        model: Model,
        request: Request,
        key: str,
        batch: list[Unit],
        turn: int,
        made: Outcome,
    ) -> dict[Unit, Kept]:
        sent = msgspec.json.encode(request.body)
        worst = worst_price(model, len(sent), self._settings.reply_tokens)
        number = self._purse.reserve(worst, turn)
        made.unknown += worst
        made.attempts += 1
        began = time.monotonic()
        price: float | None = None
        try:
            answer = self._send(request, key, self._settings.timeout_s)
            # From here on the provider has worked: an answer that cannot be read keeps its reservation.
            reply = providers.reply(reviewer.provider, answer.document)
            price = (reply.tokens_in * model.input_price + reply.tokens_out * model.output_price) / MILLION
        except CallError as error:
            price = None if error.billed else 0.0
            raise
        finally:
            self._purse.settle(number, price)
            made.unknown -= worst if price is not None else 0.0
        made.sent += characters(batch)
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
        made.calls.append(evidence)
        asked = prompt.names(batch)
        read = replies.read(reply.text, asked, f"external:{model.name}")
        made.dropped += read.dropped
        mode = "recorded" if loopback(reviewer.endpoint) else "live"
        return {
            unit: Kept(findings=read.findings[name], call=evidence.request, mode=mode, lasts_s=0)
            for name, unit in asked.items()
        }


def worst_price(model: Model, size: int, reply_tokens: int) -> float:
    """Dollars that a call with so many characters costs at most."""
    asked = size / CHARACTERS_PER_TOKEN * model.input_price
    return (asked + reply_tokens * model.output_price) / MILLION


def characters(batch: Iterable[Unit]) -> int:
    """Characters of a question, with the instructions before it."""
    return len(prompt.INSTRUCTIONS) + len(prompt.question(list(batch)))


def model_of(reviewer: Reviewer, unit: Unit) -> Model:
    """Which model of a reviewer is asked about a unit."""
    models = {"strong": reviewer.strong, "medium": reviewer.medium, "cheap": reviewer.cheap}
    return models[unit.route]
