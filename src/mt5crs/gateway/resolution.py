"""How the fate of a submission without an answer is found out. Used by the terminal's thread."""

from collections.abc import Callable

import msgspec

from mt5crs.broker.interface import Broker, BrokerError
from mt5crs.protocol import requests as ask
from mt5crs.protocol.records import Deal
from mt5crs.protocol.replies import OrderResult, Reply

from .account_view import AccountView
from .evidence import Verdict, resembling, verdict_of
from .journal import Entry, Journal
from .ledger import SEARCHED_BACK_MS
from .order_refusals import broker_failed
from .order_results import OrderResults
from .pending import Seen
from .refusal import Refusal
from .settlement import Settlement
from .unresolved import Unresolved

_WIDE_MARGIN_MS = 26 * 3600_000
"""So far before the moment of sending it is searched where much depends on it: whatever the clocks say."""
_WIDE_INTERVAL_S = 5.0
_DECLARED_KEPT_MS = 7 * 24 * 3600_000
"""For so long an order that was declared not executed is still looked for."""
_DECLARED_RARELY_S = 600.0


class Resolution:
    """By the broker's books, again and again; by a person's word, when they show nothing of it."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        account: AccountView,
        unresolved: Unresolved,
        settlement: Settlement,
        results: OrderResults,
        note: Callable[..., None],
        resolve_after_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        """A person may declare an order not executed when `resolve_after_s` have passed since it was sent."""
        self._broker = broker
        self._journal = journal
        self._account = account
        self._unresolved = unresolved
        self._settlement = settlement
        self._results = results
        self._note = note
        self._resolve_after_ms = resolve_after_s * 1000
        self._monotonic = monotonic
        self._declared = {
            (entry.request.magic, entry.request.client_order_id): entry for entry in journal.declared()
        }
        self._declared_due = 0.0
        self._searched_wide = -_WIDE_INTERVAL_S

    def resolve_all(self) -> None:
        """Try to find out the fate of every unresolved submission, and of those that were declared."""
        if self._declared and self._monotonic() >= self._declared_due:
            self._look_for_declared()
        if not self._unresolved:
            return
        now = self._monotonic()
        wide = now - self._searched_wide >= _WIDE_INTERVAL_S
        if wide:
            self._searched_wide = now
        entries = self._unresolved.entries()
        oldest = min(entry.sent_msc for entry in entries)
        # read once for all: the lists of a terminal can be slow
        seen = self._account.evidence(oldest, _WIDE_MARGIN_MS if wide else SEARCHED_BACK_MS)
        for entry in entries:
            self._resolve(entry, seen)

    def try_to_resolve(self, entry: Entry) -> None:
        """Try to find out the fate of one."""
        self._resolve(entry, self._account.evidence(entry.sent_msc, SEARCHED_BACK_MS))

    def query(self, request: ask.OrderQuery) -> Reply:
        """Answer an ORDER_QUERY."""
        return self._results.recorded(
            request.id, self._resolved_entry(request.magic, request.client_order_id)
        )

    def declare(self, request: ask.OrderResolve) -> Reply:
        """Answer an ORDER_RESOLVE: a person says that the submission was not executed."""
        entry = self._resolved_entry(request.magic, request.client_order_id)
        if entry.answer is not None:
            if self._account.pending.accept(request.magic, request.client_order_id):
                self._note("books.accepted", client=request.client, client_order_id=request.client_order_id)
            return self._results.recorded(request.id, entry)
        self._require_no_trace(entry, request.reason)
        message = f"declared not executed by {request.client}: {request.reason}"
        answer = self._results.result(entry, request.id, "REJECTED", 0, message[:256], "operator")
        self._note("order.declared", client=request.client, client_order_id=request.client_order_id)
        reply = self._settlement.settle(entry, answer)
        if isinstance(reply, OrderResult) and reply.evidence == "operator":
            self._declared[request.magic, request.client_order_id] = entry
            self._declared_due = 0.0
        return reply

    def _resolve(self, entry: Entry, seen: Seen | None) -> None:
        verdict = verdict_of(entry, seen)
        if seen is None or verdict is None:
            self._unresolved.add(entry)
            return
        answer = self._results.from_books(entry, verdict, 0, seen)
        self._settlement.settle(entry, answer, seen)
        self._note("order.resolved", client_order_id=entry.request.client_order_id, outcome=answer.outcome)

    def _look_for_declared(self) -> None:
        """A person's word that an order was not executed is not the end of it: it may be filled later."""
        now, youngest = self._broker.time_msc(), _DECLARED_KEPT_MS
        for key, entry in list(self._declared.items()):
            age = now - entry.sent_msc
            youngest = min(youngest, age)
            recent = age < _DECLARED_RARELY_S * 1000
            seen = self._account.evidence(entry.sent_msc, SEARCHED_BACK_MS if recent else _WIDE_MARGIN_MS)
            verdict = verdict_of(entry, seen)
            if seen is not None and verdict is not None:
                self._found_after_all(entry, verdict, seen)
            elif age > _DECLARED_KEPT_MS:
                del self._declared[key]
                self._account.shown(entry)
        often = youngest < _DECLARED_RARELY_S * 1000
        self._declared_due = self._monotonic() + (_WIDE_INTERVAL_S if often else _DECLARED_RARELY_S)

    def _found_after_all(self, entry: Entry, verdict: Verdict, seen: Seen) -> None:
        request = entry.request
        del self._declared[request.magic, request.client_order_id]
        if verdict.volume or verdict.outcome == "PLACED":
            said = "declared not executed, and executed after all"
            answer = self._results.from_books(entry, msgspec.structs.replace(verdict, message=said), 0, seen)
            self._note(
                "order.late_fill",
                magic=request.magic,
                client_order_id=request.client_order_id,
                order=verdict.order,
                volume=verdict.volume,
            )
            self._settlement.settle(entry, answer, seen)
        else:
            self._account.shown(entry)

    def _resolved_entry(self, magic: int, client_order_id: str) -> Entry:
        entry = self._journal.find(magic, client_order_id)
        if entry is not None and entry.answer is None:
            self.try_to_resolve(entry)
            entry = self._journal.find(magic, client_order_id)
        if entry is None:
            raise Refusal(
                "UNKNOWN_ORDER",
                "client_order_id",
                f"nothing is recorded under {client_order_id} of magic {magic}",
                "it was never handed to the broker; it may be sent under the same id",
            )
        return entry

    def _require_no_trace(self, entry: Entry, reason: str) -> None:
        """Raise Refusal unless enough time has passed and the broker's books show nothing of an order."""
        left_ms = self._resolve_after_ms - self._unresolved.since_s(entry) * 1000
        if left_ms > 0:
            raise Refusal(
                "UNRESOLVED",
                "client_order_id",
                "it was sent a moment ago and may still be executed",
                f"look again and declare it in {left_ms / 1000:.0f} s (RESOLVE_AFTER_S)",
                retry_ms=int(left_ms) + 1,
            )
        since = max(0, entry.sent_msc - _WIDE_MARGIN_MS)
        try:
            orders = [*self._account.look().orders, *self._broker.closed_orders(since)]
            deals = self._broker.deals(since)
        except BrokerError as error:
            raise broker_failed(error) from error
        seen = [order.ticket for order in orders if order.comment == entry.comment_id]
        seen += [deal.ticket for deal in deals if deal.comment == entry.comment_id]
        if seen:
            raise Refusal(
                "UNRESOLVED",
                "client_order_id",
                f"the broker's books show it (tickets {seen}), though its end is not known yet",
                "wait: it will be resolved from the books",
            )
        magic = entry.request.magic
        for record in resembling(entry, orders, deals):
            order = record.order if isinstance(record, Deal) else record.ticket
            named = str(record.ticket) in reason or str(order) in reason
            if named or self._journal.belongs(magic, record.comment, order):
                continue
            raise Refusal(
                "UNRESOLVED",
                "client_order_id",
                f"ticket {record.ticket} has the same magic number, symbol and side, and belongs to no other "
                "order of this gateway: the broker may have changed its comment",
                f"if it is certainly something else, name {record.ticket} in the reason",
            )
