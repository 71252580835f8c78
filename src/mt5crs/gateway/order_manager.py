"""Submissions: checked, recorded, handed to the broker once, and their fate found out. Used by the terminal's
thread.

What it holds together: the account as it is looked at (`account_view`), checks and the request to the broker
(`order_checks`, `preparation`, `blocking`), what became of a submission (`settlement`, `resolution`,
`unresolved`).
"""

import time
from collections.abc import Callable, Mapping

import msgspec

from mt5crs.broker.interface import Books, Broker, BrokerError, TooLateError, TradeRequest, TradeResult
from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import VERSION
from mt5crs.protocol.records import Deal, GuardInfo, Identity
from mt5crs.protocol.replies import CheckResult, Error, OrderResult, Reply
from mt5crs.service.elapsed import elapsed_s
from mt5crs.settings.gateway import Limits, Phase

from . import risk
from .account_view import AccountView
from .beginning import Beginning
from .blocking import Blocking
from .breaker import Breaker
from .control import Control
from .expected_account import ExpectedAccount
from .guards import Guards
from .journal import Entry, Journal, JournalError, fingerprint, new_entry
from .ledger import Ledger
from .order_checks import OrderChecks
from .order_refusals import broker_failed, expired, journal_failed, phase_changed
from .order_results import OrderResults
from .phases import Phases
from .preparation import Preparation
from .refusal import Refusal
from .resolution import Resolution
from .settlement import Settlement
from .shared_account import SharedAccount
from .slippage import Slippage
from .stream import Stream
from .trade_requests import trade_request
from .unfilled import Unfilled
from .unresolved import Unresolved
from .watch import Watch


class OrderManager:
    """Owns the journal. Every public method answers with a reply or raises Refusal; BrokerError never leaves
    it.
    """

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        control: Control,
        watch: Watch,
        ledger: Ledger,
        stream: Stream,
        limits: Callable[[], dict[int, Limits]],
        login: int,
        server: str,
        note: Callable[..., None],
        phase: Phase = "test",
        *,
        phases: Phases | None = None,
        books_lag_s: float = 10.0,
        resolve_after_s: float = 30.0,
        max_clock_skew_s: float = 60.0,
        quote_life_s: float = 900.0,
        monotonic: Callable[[], float] = elapsed_s,
        answered: Callable[[float], None] = lambda _seconds: None,
        dealt: Callable[[int], None] = lambda _magic: None,
        unfilled: Unfilled | None = None,
    ) -> None:
        """`note(event, **fields)` logs; `login` and `server` are the only account that may be traded, and
        only if `phase` takes its kind. After `books_lag_s` an order that the books do not show is unresolved;
        a person may declare it not executed when `resolve_after_s` have passed since it was sent. While the
        broker's time is not known to `max_clock_skew_s`, no order is sent. A quote older than
        `quote_life_s` is no measure of a value. `answered` is told how long an order took that the broker was
        asked about, `dealt` the magic number of each new deal.
        """
        self._broker = broker
        self._journal = journal
        self._control = control
        self._watch = watch
        self._ledger = ledger
        self._stream = stream
        self._limits = limits
        self._expected = ExpectedAccount(login, server, phase)
        self._phases = phases
        self._note = note
        self._answered = answered
        self._dealt = dealt
        self._unfilled = unfilled or Unfilled(monotonic)
        self._breaker = Breaker(journal, note)
        self._results = OrderResults(stream)
        self._shared = SharedAccount(journal, limits, note)
        self._beginning = Beginning(broker, journal, note)
        self._account = AccountView(
            broker,
            journal,
            watch,
            ledger,
            self._expected,
            limits,
            note,
            self._on_deals,
            self._beginning,
            self._breaker,
            phases,
            books_lag_s,
            monotonic,
        )
        self._unresolved = Unresolved(journal, self._account.pending, monotonic)
        self._checks = OrderChecks(
            broker,
            self._account,
            self._unresolved,
            self._breaker,
            phases,
            watch.skew,
            max_clock_skew_s,
            quote_life_s,
        )
        self._preparation = Preparation(broker, self._account.pending, self._checks)
        slippage = Slippage(broker, limits, phases, note)
        self._settlement = Settlement(
            journal, self._account, self._unresolved, self._breaker, self._results, slippage, note
        )
        self._resolution = Resolution(
            broker,
            journal,
            self._account,
            self._unresolved,
            self._settlement,
            self._results,
            note,
            resolve_after_s,
            monotonic,
        )
        self._blocking = Blocking(self._unresolved, self._resolution, self._preparation)
        self._guards = Guards(limits, phases, self._account, self._breaker, self._unresolved)

    # --- state ---------------------------------------------------------------------------------------------

    def unresolved(self, magic: int) -> list[str]:
        """Client order ids of a magic number whose fate is not known, or whose effect the books do not show
        although they should by now. Safe to call from another thread.
        """
        return self._unresolved.of(magic)

    def unsettled(self, magic: int) -> list[str]:
        """The same, and what the books may still be late with: until it is empty, they are not the state."""
        return self._unresolved.unsettled(magic)

    def unresolved_by_magic(self) -> dict[int, int]:
        """How many submissions are unresolved, by magic number, but for one that is at the broker right now.

        Safe to call from another thread.
        """
        return self._unresolved.by_magic()

    def account(self) -> tuple[Books, Mapping[int, float], Mapping[int, Limits]] | None:
        """Books, results of the day and limits in force as of the last look; None before the first.

        Safe to call from another thread.
        """
        return self._guards.account()

    def guards(self) -> list[GuardInfo]:
        """What the risk gate knows, per magic number with limits. Safe to call from another thread."""
        return self._guards.all()

    def reset_breaker(self, magic: int) -> None:
        """Close the circuit breaker of a magic number (0: of all)."""
        self._breaker.reset(magic)

    def require_account(self, identity: Identity) -> None:
        """Raise Refusal NOT_READY when the terminal shows another account than the configured one."""
        self._expected.require_account(identity)

    def require_ready(self, identity: Identity) -> None:
        """Raise Refusal NOT_READY unless this is the right account, connected and allowed to trade."""
        self._expected.require_ready(identity)

    def look(self) -> Books:
        """Books, with events published and the day's result brought up to date.

        Raises BrokerError, and Refusal NOT_READY for another account: its books must not mix with ours.
        """
        return self._account.look()

    def keep_seen(self) -> None:
        """After a look: write down what was seen, if that is the whole of it. Not beside an order."""
        self._account.keep_seen()

    def _on_deals(self, fresh: list[Deal]) -> None:
        self._shared.look_for_others(fresh)
        for deal in fresh:
            self._dealt(deal.magic)
            self._unfilled.dealt(deal.magic)

    # --- submissions ---------------------------------------------------------------------------------------

    def submit(
        self,
        request: ask.Submission,
        waited_ms: Callable[[], int],
        *,
        operator: bool = False,
        plain: bool = False,
    ) -> Reply:
        """Carry out a submission once, or give the recorded answer. `waited_ms`: how long it has waited.

        `operator`: it comes from a client that administers and does not trade this magic number; it may close
        and cancel while the magic number is halted, without a lease. `plain`: it comes through the plain
        door, whose clients name no filling; the symbol's own takes the place of the one in the request.
        """
        known = self._journal.find(request.magic, request.client_order_id)
        if known is not None:
            return self._repeat(request, known)
        try:
            forgotten = self._forgotten(request)
            if forgotten is not None:
                return self._repeat(request, forgotten)
            return self._first_time(request, waited_ms, None if operator else request.lease_epoch, plain)
        except Refusal as refusal:
            if self._phases is not None and refusal.code == "LIMIT" and isinstance(request, ask.OrderSend):
                self._phases.refused(request.magic)
            return self._refuse(request, refusal)
        except BrokerError as error:
            return self._refuse(request, broker_failed(error))
        finally:
            self._unresolved.out_of_hand()

    def _forgotten(self, request: ask.Submission) -> Entry | None:
        """A submission that the broker's books know and a restored or new journal does not: recorded anew, as
        one whose fate is not known yet. Raises BrokerError and Refusal: what cannot be looked up is not sent.
        """
        since = self._journal.restored_since(_host_msc())
        if since is None or isinstance(request, ask.OrderCancel):
            return None
        entry = new_entry(request, "sent", since)
        if (request.magic, entry.comment_id) not in self._beginning.marks(self.look(), since):
            return None
        try:
            self._journal.record(entry)
        except JournalError as error:
            raise journal_failed(error) from error
        self._unresolved.add(entry)
        self._note("order.forgotten", magic=request.magic, client_order_id=request.client_order_id)
        return entry

    def _repeat(self, request: ask.Submission, known: Entry) -> Reply:
        if fingerprint(request) != known.fingerprint:
            raise Refusal(
                "DUPLICATE_ID",
                "client_order_id",
                f"{request.client_order_id} was used before with other content",
                "use a new client order id for a new order",
            )
        if known.answer is None:
            self._resolution.try_to_resolve(known)
            known = self._journal.find(request.magic, request.client_order_id) or known
        return self._results.recorded(request.id, known)

    def _refuse(self, request: ask.Submission, refusal: Refusal) -> Error:
        """Answer a refusal; a final one is recorded, so that a late repetition cannot succeed."""
        if not refusal.final:
            return refusal.reply(request.id)
        answer = refusal.reply(request.id)
        try:
            self._journal.record(new_entry(request, "refused", _host_msc(), answer))
            self._journal.forget_unsent(request.magic)
        except JournalError as error:
            return journal_failed(error).reply(request.id)
        return answer

    def _first_time(
        self, request: ask.Submission, waited_ms: Callable[[], int], epoch: int | None, plain: bool
    ) -> Reply:
        self._control.check(request.magic, epoch)
        if epoch is not None:
            self._blocking.require_settled(request)
        books = self.look()
        if epoch is None and isinstance(request, ask.PositionClose):
            self._blocking.require_unrelated(request, books)
        self.require_ready(books.identity)
        limits = (
            risk.limits_of(self._limits(), request.magic)
            if epoch is not None
            else self._limits().get(request.magic, risk.CLOSING_ONLY)
        )
        phases = self._phases if isinstance(request, ask.OrderSend) else None
        changes = 0 if phases is None else phases.changes
        if phases is not None and isinstance(request, ask.OrderSend):
            limits = phases.limits_for(request, limits, lambda: self._unresolved.view(books))
        priced = self._preparation.priced(self._preparation.filled(request) if plain else request, limits)
        trade = self._preparation.prepare(priced, books, limits)
        left_ms = request.valid_ms - waited_ms()
        if left_ms < 0:
            raise expired(request)
        trade = msgspec.structs.replace(trade, until_s=elapsed_s() + left_ms / 1000)
        if phases is not None:
            phases.taken(request.magic)
        if limits.dry_run:
            answer = self._dry_run(request, books.time_msc)
            if phases is not None:
                phases.concluded(request.magic, answer)
            return answer
        with self._control.permit(request.magic, epoch):
            if phases is not None and phases.changes != changes:
                raise phase_changed()
            entry = new_entry(request, "sent", books.time_msc)
            entry = msgspec.structs.replace(entry, request=priced)
            try:
                self._journal.record(entry)
            except JournalError as error:
                raise journal_failed(error) from error
            # unresolved until settled, so that no failure of ours in between can let another order through
            self._unresolved.sending(entry)
            self._shared.sending(entry.comment_id)
            try:
                result = self._send(trade)
            except TooLateError as error:
                return self._not_sent(entry, error)
        self._watch.look_for_deals()
        answer = self._settlement.conclude(entry, trade, result, books)
        took_ms = waited_ms()
        self._answered(took_ms / 1000)
        if isinstance(request, ask.OrderSend) and isinstance(answer, OrderResult):
            self._unfilled.answered(request.magic, answer.outcome)
        if phases is not None:
            phases.concluded(request.magic, answer, took_ms)
        return answer

    def _not_sent(self, entry: Entry, error: TooLateError) -> Reply:
        """Answer a submission that is recorded as sent and was not, because its time was over before."""
        request = entry.request
        self._note("order.too_late", client_order_id=request.client_order_id, error=error.message)
        answer = expired(request).reply(request.id)
        try:
            self._journal.withdraw(entry, answer, _host_msc())
        except JournalError as failed:  # it stays unresolved, which is true of the record
            self._note("journal.failed", error=str(failed), client_order_id=request.client_order_id)
            return self._results.recorded(request.id, entry)
        self._unresolved.drop(request)
        return answer

    def _send(self, trade: TradeRequest) -> TradeResult | None:
        """Hand it over, once. Raises TooLateError: it was not."""
        try:
            return self._broker.send(trade)
        except TooLateError:
            raise
        except BrokerError as error:
            self._note("order.no_reply", error=str(error))
            return None

    def _dry_run(self, request: ask.Submission, now_msc: int) -> Reply:
        entry = new_entry(request, "refused", now_msc)
        answer = self._results.result(
            entry, request.id, "DRY_RUN", 0, "passed all checks; not sent", "gateway"
        )
        try:
            self._journal.record(msgspec.structs.replace(entry, answer=answer, sent_msc=_host_msc()))
            self._journal.forget_unsent(request.magic)
        except JournalError as error:
            raise journal_failed(error) from error
        return answer

    # --- checks and phases ---------------------------------------------------------------------------------

    def check(self, request: ask.OrderCheck) -> CheckResult:
        """Answer an ORDER_CHECK. Raises Refusal as a submission would."""
        try:
            books = self.look()
            self.require_ready(books.identity)
            limits = risk.limits_of(self._limits(), request.magic)
            if self._phases is not None:
                limits = self._phases.limits_for(request, limits, lambda: self._unresolved.view(books))
            self._checks.check_order(request, books, limits)
            outcome = self._broker.check(trade_request(request, "check", limits))
        except BrokerError as error:
            raise broker_failed(error) from error
        return CheckResult(
            v=VERSION,
            id=request.id,
            retcode=outcome.retcode,
            comment=outcome.comment,
            margin=outcome.margin,
            margin_free=outcome.margin_free,
        )

    def phase(self, request: ask.PhaseQuery | ask.PhaseSet) -> Reply:
        """Answer what is asked about a phase. Raises Refusal."""
        if self._phases is None:
            raise Refusal("UNKNOWN_KIND", "kind", "there are no phases here", "ask the gateway of a fleet")
        try:
            identity = self._broker.identity()
            self.require_account(identity)
            return self._phases.answer(request, self._limits().get(request.magic), identity.currency)
        except (BrokerError, Refusal) as error:
            if isinstance(request, ask.PhaseQuery):
                return self._phases.state(request.id, request.magic, f"not known now: {error}")
            raise error if isinstance(error, Refusal) else broker_failed(error) from error

    # --- resolution ----------------------------------------------------------------------------------------

    def resolve_all(self) -> None:
        """Try to find out the fate of every unresolved submission, and of those that were declared."""
        self._resolution.resolve_all()

    def query(self, request: ask.OrderQuery) -> Reply:
        """Answer an ORDER_QUERY."""
        return self._resolution.query(request)

    def declare(self, request: ask.OrderResolve) -> Reply:
        """Answer an ORDER_RESOLVE: a person says that the submission was not executed."""
        return self._resolution.declare(request)


def _host_msc() -> int:
    """This host's wall clock, which is never unknown."""
    return time.time_ns() // 1_000_000
