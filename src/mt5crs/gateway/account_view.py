"""The account as the terminal shows it, look by look. Used by the terminal's thread."""

from collections.abc import Callable

from mt5crs.broker.interface import Books, Broker, BrokerError
from mt5crs.protocol import requests as ask
from mt5crs.protocol.records import Deal
from mt5crs.protocol.replies import OrderResult
from mt5crs.settings.gateway import Limits

from .beginning import Beginning
from .breaker import Breaker
from .day_results import DayResults
from .expected_account import ExpectedAccount
from .journal import Entry, Journal, JournalError, Sighting
from .last_seen import LastSeen
from .ledger import Ledger
from .order_refusals import not_loaded
from .pending import Pending, Seen
from .phases import Phases
from .refusal import Refusal
from .watch import Watch


class AccountView:
    """Every look goes through here: it is of the right account, loaded, and its events are published."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        watch: Watch,
        ledger: Ledger,
        expected: ExpectedAccount,
        limits: Callable[[], dict[int, Limits]],
        note: Callable[..., None],
        on_deals: Callable[[list[Deal]], None],
        beginning: Beginning,
        breaker: Breaker,
        phases: Phases | None,
        books_lag_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        """`on_deals` hears of deals not seen before; the books may be `books_lag_s` late with an order."""
        self._broker = broker
        self._journal = journal
        self._watch = watch
        self._ledger = ledger
        self._expected = expected
        self._limits = limits
        self._note = note
        self._on_deals = on_deals
        self._beginning = beginning
        self._breaker = breaker
        self._phases = phases
        self.pending = Pending(broker, books_lag_s, note, self.shown, ledger.since, monotonic)
        for entry in journal.told():
            if isinstance(entry.answer, OrderResult):
                effect = self.pending.effect_of(entry, entry.answer, None)
                if effect is not None:
                    self.pending.wait_for(effect)
        self.last_seen = LastSeen(journal)
        self._results = DayResults(ledger, self.last_seen, self.pending, limits)
        self._seen_due = True
        self.noticed: Books | None = None
        """The books as of the last look. Reading it is safe from another thread."""
        self._was_empty = False
        """Whether the last books that made sense listed nothing, whatever became of that look."""
        self.daily: dict[int, float] = {}
        """By magic number, as of the last look; empty before the first one: not known is not zero. Replaced,
        not changed: reading it is safe from another thread.
        """

    def look(self) -> Books:
        """Books, with events published and the day's result brought up to date.

        Raises BrokerError, and Refusal NOT_READY for another account: its books must not mix with ours.
        """
        books = self._broker.books()
        self._expected.require_account(books.identity)
        self._require_loaded(books)
        self._beginning.look(books)
        if self.pending or self._ledger.due(books.time_msc):
            self._watch.look_for_deals()
        changed, fresh = self._watch.observe(books)
        if self.noticed is None:
            known = self.last_seen.among(books)
            if known is not None:  # a terminal that has just started may list a part of that
                self.pending.notice(*known, (), self._limits())
        elif changed or fresh:
            self.pending.notice(self.noticed, books, fresh, self._limits())
        self._seen_due |= changed or bool(fresh)
        self.noticed = books
        self._on_deals(fresh)
        self.pending.look(books)
        self.daily = self._results.today(books)
        if self._phases is not None:
            self._phases.review(self.daily, self._breaker.failures, self._limits(), books.identity.currency)
        return books

    def keep_seen(self) -> None:
        """After a look: write down what was seen, if that is the whole of it. Not beside an order."""
        books = self.noticed
        if books is None or self.pending or not self._seen_due:
            return
        results = self._results.realised_by_magic(books.time_msc)
        try:
            self.last_seen.keep(books, results)
        except JournalError as error:
            self._note("journal.failed", error=str(error))
        else:
            self._seen_due = False

    def evidence(self, sent_msc: int, margin_ms: int) -> Seen | None:
        """Books and history since `margin_ms` before an order was sent; None when they could not be read."""
        since = self._ledger.since(sent_msc, margin_ms)
        try:
            books = self.look()
            seen = Seen(books, self._broker.closed_orders(since), self._broker.deals(since))
        except (BrokerError, Refusal) as error:
            self._note("evidence.unavailable", error=str(error))
            return None
        ended = (order.time_done_msc for order in seen.closed)
        placed = (order.time_setup_msc for order in books.orders)
        self._ledger.saw_orders((*ended, *placed), books.time_msc)
        return seen

    def shown(self, entry: Entry) -> None:
        """The books show all of a submission."""
        try:
            self._journal.close_case(entry, self._seen_around(entry.request))
        except JournalError as error:  # after a restart it is looked for once more
            self._note("journal.failed", error=str(error), client_order_id=entry.request.client_order_id)

    def _require_loaded(self, books: Books) -> None:
        """Raise Refusal NOT_READY while a terminal that has just started shows nothing yet.

        Its lists are empty then, though the account's money says that something is open.
        """
        empty = not books.positions and not books.orders
        bound = books.account.margin > 0 or books.account.profit != 0
        # after an empty account it may be an order that is not listed yet
        if empty and bound and not self._was_empty:
            raise not_loaded(
                "the terminal shows no position and no order, but the account has money bound in them"
            )
        self._was_empty = empty

    def _seen_around(self, request: ask.Submission) -> list[Sighting]:
        """What there is of a submission's symbol, now that the books show all of it."""
        books = self.noticed
        if books is None or isinstance(request, ask.OrderCancel):
            return []
        if isinstance(request, ask.PositionClose):
            return self.last_seen.after(books, {request.position}, request.magic)
        tickets = {p.identifier for p in books.positions if p.symbol == request.symbol}
        tickets |= {o.ticket for o in books.orders if o.symbol == request.symbol}
        return self.last_seen.after(books, tickets, request.magic)
