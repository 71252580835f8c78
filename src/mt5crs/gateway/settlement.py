"""What became of a submission, put on record. Used by the terminal's thread."""

from collections.abc import Callable
from typing import Literal

import msgspec

from mt5crs.broker.interface import Books, BrokerError, TradeRequest, TradeResult
from mt5crs.broker.retcodes import DONE, DONE_PARTIAL, certainly_not_executed, name
from mt5crs.protocol import requests as ask
from mt5crs.protocol.replies import OrderResult, Reply

from .account_view import AccountView
from .breaker import Breaker
from .evidence import verdict_of
from .journal import Entry, Journal, JournalError, Sighting
from .ledger import JUST_NOW_MS, SEARCHED_BACK_MS
from .order_results import OrderResults, outcome_of, reason_of
from .pending import Effect, Seen
from .slippage import Slippage
from .unresolved import Unresolved

_SUCCESS = frozenset({"FILLED", "PARTIAL", "PLACED"})


class Settlement:
    """Answer, count of failures and what was seen are one journal write; what was sent stays unresolved
    until that has succeeded.
    """

    def __init__(
        self,
        journal: Journal,
        account: AccountView,
        unresolved: Unresolved,
        breaker: Breaker,
        results: OrderResults,
        slippage: Slippage,
        note: Callable[..., None],
    ) -> None:
        self._journal = journal
        self._account = account
        self._unresolved = unresolved
        self._breaker = breaker
        self._results = results
        self._slippage = slippage
        self._note = note

    def conclude(self, entry: Entry, trade: TradeRequest, result: TradeResult | None, before: Books) -> Reply:
        """Outcome from the broker's reply and books; UNRESOLVED when neither decides.

        The reply counts only when the books could be read: the account may have been switched meanwhile.
        """
        request = entry.request
        change = not isinstance(request, ask.OrderSend)
        if result is not None and certainly_not_executed(result.retcode, change=change):
            answer = self._results.result(
                entry, request.id, "REJECTED", result.retcode, reason_of(result), "reply"
            )
            return self.settle(entry, answer)
        # what was just done is as a rule among the latest
        seen = self._account.evidence(entry.sent_msc, JUST_NOW_MS)
        verdict = verdict_of(entry, seen)
        if verdict is None:
            seen = self._account.evidence(entry.sent_msc, SEARCHED_BACK_MS)
            verdict = verdict_of(entry, seen)
        if seen is not None and verdict is not None:
            answer = self._results.from_books(entry, verdict, result.retcode if result else 0, seen)
            return self.settle(entry, answer, seen, before)
        done = result is not None and result.retcode in (DONE, DONE_PARTIAL)
        if seen is not None and result is not None and done and (result.order or result.deal):
            outcome = outcome_of(trade, result)
            if outcome is not None:
                return self.settle(entry, self._results.from_reply(entry, outcome, result), seen, before)
        code = result.retcode if result else 0
        text = name(code) if result else "the broker gave no reply"
        self._note(
            "order.unresolved", magic=request.magic, client_order_id=request.client_order_id, retcode=code
        )
        return self._results.result(entry, request.id, "UNRESOLVED", code, text, "none")

    def settle(
        self, entry: Entry, answer: OrderResult, seen: Seen | None = None, before: Books | None = None
    ) -> Reply:
        """Record an answer. What the books as `seen` do not show of it is waited for; `before` is the view it
        was decided on.
        """
        request = entry.request
        effect = None if seen is None else self._not_shown(entry, answer, seen, before)
        if effect is not None:
            # one of the events that are still to come: who waits for it sees the whole effect
            answer = msgspec.structs.replace(answer, seq=answer.seq + 1)
        magic = request.magic
        failures = self._breaker.failures.get(magic, 0)
        if isinstance(request, ask.OrderSend):  # closing and cancelling say nothing about new orders
            good = answer.outcome in _SUCCESS and not self._slippage.slipped(request, answer)
            failures = 0 if good else failures + 1
        try:
            declared = answer.evidence == "operator"
            state: Literal["done", "told", "declared"] = (
                "declared" if declared else "done" if effect is None else "told"
            )
            self._journal.settle(entry, answer, failures, state, self._seen_of(magic, answer, effect, seen))
        except JournalError as error:
            self._unresolved.add(entry)  # the resolver writes it when the disk is back
            self._note("journal.failed", error=str(error), client_order_id=request.client_order_id)
            return self._results.result(
                entry, request.id, "UNRESOLVED", answer.retcode, "journal not writable", "none"
            )
        self._breaker.failures[magic] = failures
        self._unresolved.drop(request)
        if effect is not None:
            self._account.pending.wait_for(effect)
        return answer

    def _seen_of(
        self, magic: int, answer: OrderResult, effect: Effect | None, seen: Seen | None
    ) -> list[Sighting]:
        if seen is None or effect is not None:
            return []
        tickets = {answer.order, answer.position} - {0}
        return self._account.last_seen.after(seen.books, tickets, magic)

    def _not_shown(
        self, entry: Entry, answer: OrderResult, seen: Seen, before: Books | None
    ) -> Effect | None:
        """What an answer says and the books do not show; None when they show it all."""
        effect = self._account.pending.effect_of(entry, answer, before)
        try:
            return None if effect is None or self._account.pending.shown(effect, seen) else effect
        except BrokerError as error:
            self._note("evidence.unavailable", error=str(error))
            return effect
