"""Submissions: checked, recorded, handed to the broker once, and their fate found out. Used by the terminal's
thread.
"""

from collections.abc import Callable
from typing import Literal

import msgspec

from mt5crs.broker.interface import Books, Broker, BrokerError, TradeRequest, TradeResult
from mt5crs.broker.retcodes import DONE, DONE_PARTIAL, certainly_not_executed, name
from mt5crs.protocol import requests as ask
from mt5crs.protocol.events import trade_topic
from mt5crs.protocol.fields import VERSION, Execution, Filling, OrderType, Outcome
from mt5crs.protocol.records import GuardInfo, Identity, Position
from mt5crs.protocol.replies import CheckResult, Error, OrderResult, Reply
from mt5crs.settings.gateway import Limits, Phase, account_problem

from . import risk
from .control import Control
from .evidence import Verdict, judge
from .journal import Entry, Journal, JournalError, fingerprint, new_entry
from .ledger import Ledger
from .refusal import Refusal
from .stream import Stream
from .watch import Watch

_EVIDENCE_MARGIN_MS = 5 * 60_000
"""How far before the moment of sending the books are searched; brokers' clocks in a reply and in the books
may differ.
"""
_EPSILON = 1e-9
_SUCCESS = frozenset({"FILLED", "PARTIAL", "PLACED"})

Evidence = Literal["reply", "books", "gateway", "none", "operator"]


class Desk:
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
    ) -> None:
        """`note(event, **fields)` logs; `login` and `server` are the only account that may be traded, and
        only if `phase` takes its kind.
        """
        self._broker = broker
        self._journal = journal
        self._control = control
        self._watch = watch
        self._ledger = ledger
        self._stream = stream
        self._limits = limits
        self._login = login
        self._server = server
        self._phase = phase
        self._note = note
        self._failures = journal.failures()
        self._unresolved: dict[tuple[int, str], Entry] = {
            (entry.request.magic, entry.request.client_order_id): entry for entry in journal.unresolved()
        }
        self._in_hand: tuple[int, str] | None = None
        """The submission at the broker right now; it counts as unresolved once that is over."""
        self._daily: dict[int, float] = {}
        """By magic number, as of the last look; empty before the first one: not known is not zero."""

    # --- state ---------------------------------------------------------------------------------------------

    def unresolved(self, magic: int) -> list[str]:
        """Client order ids of a magic number whose fate is not known."""
        return sorted(cid for m, cid in list(self._unresolved) if m == magic) if self._unresolved else []

    def unresolved_by_magic(self) -> dict[int, int]:
        """How many submissions are unresolved, by magic number, but for one that is at the broker right now.

        Safe to call from another thread.
        """
        found: dict[int, int] = {}
        for key in list(self._unresolved):
            if key != self._in_hand:
                found[key[0]] = found.get(key[0], 0) + 1
        return found

    def guards(self) -> list[GuardInfo]:
        """What the risk gate knows, per magic number with limits. Safe to call from another thread."""
        found = []
        daily = self._daily
        for magic, limits in sorted(self._limits().items()):
            failures = self._failures.get(magic, 0)
            most = limits.max_consecutive_failures
            found.append(
                GuardInfo(
                    magic=magic,
                    dry_run=limits.dry_run,
                    unresolved=self.unresolved(magic),
                    consecutive_failures=failures,
                    breaker_open=most is not None and failures >= most,
                    daily_profit=round(daily[magic], 2) if magic in daily else None,
                )
            )
        return found

    def reset_breaker(self, magic: int) -> None:
        """Close the circuit breaker of a magic number (0: of all)."""
        for each in [magic] if magic else list(self._failures):
            try:
                self._journal.reset_failures(each)
            except JournalError as error:  # it stays open: better than a count that a restart brings back
                self._note("journal.failed", error=str(error), magic=each)
            else:
                self._failures[each] = 0

    def require_account(self, identity: Identity) -> None:
        """Raise Refusal NOT_READY when the terminal shows another account than the configured one."""
        if (identity.login, identity.server) != (self._login, self._server):
            raise Refusal(
                "NOT_READY",
                "login",
                f"the terminal shows {identity.login}@{identity.server}, not {self._login}@{self._server}",
                "log the terminal in to the configured account",
                retry_ms=1000,
            )
        wrong = account_problem(self._phase, identity.trade_mode)
        if wrong:
            raise Refusal(
                "NOT_READY",
                "trade_mode",
                wrong,
                "log the terminal in to an account of the phase, or correct gateway_account_phase",
                retry_ms=1000,
            )

    def require_ready(self, identity: Identity) -> None:
        """Raise Refusal NOT_READY unless this is the right account, connected and allowed to trade."""
        self.require_account(identity)
        if identity.connected and identity.trade_allowed:
            return
        for field, good, remedy in (
            ("connected", identity.connected, "check the terminal's connection to the trade server"),
            ("trade_allowed", identity.trade_allowed, "switch auto-trading on in the terminal"),
        ):
            if not good:
                raise Refusal(
                    "NOT_READY", field, f"the terminal says {field} is false", remedy, retry_ms=1000
                )

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
            return self._first_time(request, waited_ms, None if operator else request.lease_epoch, plain)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except BrokerError as error:
            return self._refuse(request, broker_failed(error))
        finally:
            self._in_hand = None

    def _repeat(self, request: ask.Submission, known: Entry) -> Reply:
        if fingerprint(request) != known.fingerprint:
            raise Refusal(
                "DUPLICATE_ID",
                "client_order_id",
                f"{request.client_order_id} was used before with other content",
                "use a new client order id for a new order",
            )
        if known.answer is None:
            self._try_to_resolve(known)
            known = self._journal.find(request.magic, request.client_order_id) or known
        return self._recorded(request.id, known)

    def _recorded(self, request_id: str, entry: Entry) -> Reply:
        answer = entry.answer
        if isinstance(answer, Error):
            return msgspec.structs.replace(answer, id=request_id)
        if isinstance(answer, OrderResult):
            return msgspec.structs.replace(answer, id=request_id, replayed=True)
        return self._result(
            entry, request_id, "UNRESOLVED", 0, "the broker's books do not show it yet", "none"
        )

    def _refuse(self, request: ask.Submission, refusal: Refusal) -> Error:
        """Answer a refusal; a final one is recorded, so that a late repetition cannot succeed."""
        if not refusal.final:
            return refusal.reply(request.id)
        answer = refusal.reply(request.id)
        try:
            self._journal.record(new_entry(request, "refused", 0, answer))
        except JournalError as error:
            return _journal_failed(error).reply(request.id)
        return answer

    def _first_time(
        self, request: ask.Submission, waited_ms: Callable[[], int], epoch: int | None, plain: bool
    ) -> Reply:
        self._control.check(request.magic, epoch)
        self._require_settled(request)
        books = self.look()
        self.require_ready(books.identity)
        limits = (
            risk.limits_of(self._limits(), request.magic)
            if epoch is not None
            else self._limits().get(request.magic, risk.CLOSING_ONLY)
        )
        priced = self._priced(self._filled(request) if plain else request, limits)
        trade = self._prepare(priced, books, limits)
        if waited_ms() > request.valid_ms:
            raise Refusal(
                "EXPIRED",
                "valid_ms",
                f"the order waited {waited_ms()} ms in the gateway, longer than its {request.valid_ms} ms",
                "look at the market again and send a new order",
                final=True,
            )
        if limits.dry_run:
            return self._dry_run(request, books.time_msc)
        with self._control.permit(request.magic, epoch):
            entry = new_entry(request, "sent", self._broker.time_msc())
            entry = msgspec.structs.replace(entry, request=priced)
            try:
                self._journal.record(entry)
            except JournalError as error:
                raise _journal_failed(error) from error
            # unresolved until settled, so that no failure of ours in between can let another order through
            self._in_hand = key = (request.magic, request.client_order_id)
            self._unresolved[key] = entry
            result = self._send(trade)
        self._watch.settle()
        return self._conclude(entry, trade, result)

    def _require_settled(self, request: ask.Submission) -> None:
        """A magic number with an unresolved submission may only cancel: that cannot double anything."""
        waiting = self.unresolved(request.magic)
        if waiting and not isinstance(request, ask.OrderCancel):
            self.resolve_all()
            waiting = self.unresolved(request.magic)
        if waiting and not isinstance(request, ask.OrderCancel):
            raise Refusal(
                "UNRESOLVED",
                "magic",
                f"the fate of {', '.join(waiting[:3])} is not known; magic {request.magic} is blocked",
                "wait until the broker's books show it, or look there and declare it (ORDER_RESOLVE)",
                final=True,
            )

    def look(self) -> Books:
        """Books, with events published and the day's result brought up to date.

        Raises BrokerError, and Refusal NOT_READY for another account: its books must not mix with ours.
        """
        books = self._broker.books()
        self.require_account(books.identity)
        self._watch.observe(books)
        self._daily = self._results_today(books)
        return books

    def _results_today(self, books: Books) -> dict[int, float]:
        """What each magic number with limits has earned today, open positions included."""
        found = {magic: self._ledger.realised_today(magic, books.time_msc) for magic in self._limits()}
        for position in books.positions:
            if position.magic in found:
                found[position.magic] += position.profit + position.swap
        return found

    def _send(self, trade: TradeRequest) -> TradeResult | None:
        try:
            return self._broker.send(trade)
        except BrokerError as error:
            self._note("order.no_reply", error=str(error))
            return None

    def _dry_run(self, request: ask.Submission, now_msc: int) -> Reply:
        entry = new_entry(request, "done", now_msc)
        answer = self._result(entry, request.id, "DRY_RUN", 0, "passed all checks; not sent", "gateway")
        try:
            self._journal.record(msgspec.structs.replace(entry, answer=answer))
        except JournalError as error:
            raise _journal_failed(error) from error
        return answer

    # --- requests to the broker ----------------------------------------------------------------------------

    def _priced(self, request: ask.Submission, limits: Limits) -> ask.Submission:
        """A market order whose client named no price gets the quote of this moment, so that its slippage is
        bounded and measured too, after a restart as well. Raises BrokerError.
        """
        if not isinstance(request, ask.OrderSend) or request.type != "MARKET" or request.price is not None:
            return request
        if risk.slippage_points(request.max_slippage_points, limits) is None:
            return request
        tick = self._broker.tick(request.symbol)
        quote = 0.0 if tick is None else tick.ask if request.side == "BUY" else tick.bid
        return msgspec.structs.replace(request, price=quote) if quote > 0 else request

    def _filled(self, request: ask.Submission) -> ask.Submission:
        if not isinstance(request, ask.OrderSend):
            return request
        filling = self._filling_for(request.symbol, request.type)
        return msgspec.structs.replace(request, filling=filling or request.filling)

    def _filling_for(self, symbol: str, kind: Execution) -> Filling | None:
        """The symbol's own filling; None when the broker has no such symbol or it cannot be traded."""
        spec = self._broker.symbol(symbol)
        return spec.filling_for(kind) if spec is not None else None

    def _prepare(self, request: ask.Submission, books: Books, limits: Limits) -> TradeRequest:
        if isinstance(request, ask.OrderSend):
            self._check_order(request, books, limits)
            return trade_request(request, new_entry(request, "sent", 0).comment_id, limits)
        if isinstance(request, ask.OrderCancel):
            return _cancel_request(request, books)
        return self._close_request(request, books, limits)

    def check(self, request: ask.OrderCheck) -> CheckResult:
        """Answer an ORDER_CHECK. Raises Refusal as a submission would."""
        try:
            books = self.look()
            self.require_ready(books.identity)
            limits = risk.limits_of(self._limits(), request.magic)
            self._check_order(request, books, limits)
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

    def _check_order(self, terms: ask.OrderTerms, books: Books, limits: Limits) -> None:
        if terms.type != "MARKET" and terms.price is None:
            raise Refusal(
                "BAD_FIELD", "price", f"a {terms.type} order needs a price", "send the price", final=True
            )
        positions = [p for p in books.positions if p.magic == terms.magic]
        orders = [o for o in books.orders if o.magic == terms.magic]
        spec, tick = self._broker.symbol(terms.symbol), self._broker.tick(terms.symbol)
        if spec is None or tick is None:
            raise Refusal(
                "UNKNOWN_SYMBOL",
                "symbol",
                f"the broker has no symbol {terms.symbol}",
                "use the broker's own name of the symbol",
                final=True,
            )
        netting = books.identity.margin_mode != "HEDGING"
        if netting:
            risk.check_unmixed(terms, books.positions, books.orders)
        floating = sum(p.profit + p.swap for p in positions)
        symbols = {terms.symbol, *(p.symbol for p in positions), *(o.symbol for o in orders)}
        risk.check_order(
            terms,
            limits,
            risk.Facts(
                spec=spec,
                tick=tick,
                positions=positions,
                orders=orders,
                netting=netting,
                daily_profit=self._ledger.realised_today(terms.magic, books.time_msc) + floating,
                failures=self._failures.get(terms.magic, 0),
                values={symbol: self._value_per_lot(symbol) for symbol in symbols},
            ),
        )
        if not spec.offers(terms.filling, terms.type):
            offered = ", ".join(spec.fillings) or "none"
            raise Refusal(
                "BAD_FIELD",
                "filling",
                f"{terms.symbol} does not take {terms.filling} for a {terms.type} order (offered: {offered})",
                "use one of the `fillings` in the symbol's specification",
                final=True,
            )

    def _value_per_lot(self, symbol: str) -> float:
        spec, tick = self._broker.symbol(symbol), self._broker.tick(symbol)
        if spec is None or tick is None or not spec.tick_size:
            raise BrokerError(-4, f"symbol {symbol} has positions but no contract specification")
        return tick.ask / spec.tick_size * spec.tick_value

    def _close_request(self, request: ask.PositionClose, books: Books, limits: Limits) -> TradeRequest:
        position = _own_position(request, books)
        volume = request.volume if request.volume is not None else position.volume
        if volume > position.volume + _EPSILON:
            raise Refusal(
                "BAD_FIELD",
                "volume",
                f"volume {volume} is more than the position's {position.volume}",
                "close at most what is open",
                final=True,
            )
        filling = self._filling_for(position.symbol, "MARKET")
        if filling is None:
            raise BrokerError(-4, f"{position.symbol} has a position but offers no filling to close it with")
        return TradeRequest(
            action="DEAL",
            magic=request.magic,
            comment=new_entry(request, "sent", 0).comment_id,
            filling=filling,
            symbol=position.symbol,
            type="SELL" if position.type == "BUY" else "BUY",
            volume=volume,
            deviation=risk.slippage_points(request.max_slippage_points, limits),
            position=position.ticket,
        )

    # --- outcomes ------------------------------------------------------------------------------------------

    def _conclude(self, entry: Entry, trade: TradeRequest, result: TradeResult | None) -> Reply:
        """Outcome from the broker's reply and books; UNRESOLVED when neither decides."""
        request = entry.request
        if result is not None and certainly_not_executed(result.retcode):
            answer = self._result(entry, request.id, "REJECTED", result.retcode, _reason(result), "reply")
            return self._settle(entry, answer)
        verdict = self._verdict(entry)
        if verdict is not None:
            return self._settle(entry, self._from_books(entry, verdict, result.retcode if result else 0))
        if result is not None and result.retcode in (DONE, DONE_PARTIAL) and (result.order or result.deal):
            outcome = _outcome_of(trade, result)
            if outcome is not None:
                return self._settle(entry, self._from_reply(entry, outcome, result))
        code = result.retcode if result else 0
        text = name(code) if result else "the broker gave no reply"
        self._note(
            "order.unresolved", magic=request.magic, client_order_id=request.client_order_id, retcode=code
        )
        return self._result(entry, request.id, "UNRESOLVED", code, text, "none")

    def _settle(self, entry: Entry, answer: OrderResult) -> Reply:
        request = entry.request
        magic, key = request.magic, (request.magic, request.client_order_id)
        failures = self._failures.get(magic, 0)
        if isinstance(request, ask.OrderSend):  # closing and cancelling say nothing about new orders
            good = answer.outcome in _SUCCESS and not self._slipped(request, answer)
            failures = 0 if good else failures + 1
        try:
            self._journal.settle(entry, answer, failures)
        except JournalError as error:
            self._unresolved[key] = entry  # the resolver writes it when the disk is back
            self._note("journal.failed", error=str(error), client_order_id=request.client_order_id)
            return self._result(
                entry, request.id, "UNRESOLVED", answer.retcode, "journal not writable", "none"
            )
        self._failures[magic] = failures
        self._unresolved.pop(key, None)
        return answer

    def _slipped(self, request: ask.OrderSend, answer: OrderResult) -> bool:
        """Whether a market order was filled worse than its bound allows; it counts as a failure then."""
        limits = self._limits().get(request.magic)
        if limits is None or not answer.volume:
            return False
        try:
            spec = self._broker.symbol(request.symbol)
        except BrokerError as error:
            self._note("slippage.unknown", client_order_id=request.client_order_id, error=str(error))
            return False
        points = risk.slipped_points(request, answer.price, spec.point) if spec else None
        bound = risk.slippage_points(request.max_slippage_points, limits)
        if points is None or bound is None or points <= bound + 1e-6:
            return False
        self._note(
            "order.slipped",
            magic=request.magic,
            client_order_id=request.client_order_id,
            points=round(points, 1),
            bound=bound,
        )
        return True

    def _verdict(self, entry: Entry) -> Verdict | None:
        """What the books say now; None also when they could not be read (then it is asked again)."""
        since = max(0, entry.sent_msc - _EVIDENCE_MARGIN_MS)
        try:
            books = self.look()
            closed = self._broker.closed_orders(since)
            deals = self._broker.deals(since)
        except (BrokerError, Refusal) as error:
            self._note("evidence.unavailable", error=str(error))
            return None
        return judge(entry, books.orders, closed, deals)

    def resolve_all(self) -> None:
        """Try to find out the fate of every unresolved submission."""
        for entry in list(self._unresolved.values()):
            self._try_to_resolve(entry)

    def _try_to_resolve(self, entry: Entry) -> None:
        verdict = self._verdict(entry)
        if verdict is None:
            self._unresolved[entry.request.magic, entry.request.client_order_id] = entry
            return
        answer = self._from_books(entry, verdict, 0)
        self._settle(entry, answer)
        self._note("order.resolved", client_order_id=entry.request.client_order_id, outcome=answer.outcome)

    def query(self, request: ask.OrderQuery) -> Reply:
        """Answer an ORDER_QUERY."""
        return self._recorded(request.id, self._resolved_entry(request.magic, request.client_order_id))

    def _resolved_entry(self, magic: int, client_order_id: str) -> Entry:
        entry = self._journal.find(magic, client_order_id)
        if entry is not None and entry.answer is None:
            self._try_to_resolve(entry)
            entry = self._journal.find(magic, client_order_id)
        if entry is None:
            raise Refusal(
                "UNKNOWN_ORDER",
                "client_order_id",
                f"nothing is recorded under {client_order_id} of magic {magic}",
                "it was never handed to the broker; it may be sent under the same id",
            )
        return entry

    def declare(self, request: ask.OrderResolve) -> Reply:
        """Answer an ORDER_RESOLVE: a person says that the submission was not executed."""
        entry = self._resolved_entry(request.magic, request.client_order_id)
        if entry.answer is not None:
            return self._recorded(request.id, entry)
        since = max(0, entry.sent_msc - _EVIDENCE_MARGIN_MS)
        try:
            orders = [*self._broker.books().orders, *self._broker.closed_orders(since)]
            deals = self._broker.deals(since)
        except BrokerError as error:
            raise broker_failed(error) from error
        seen = [o.ticket for o in orders if o.comment == entry.comment_id]
        seen += [d.ticket for d in deals if d.comment == entry.comment_id]
        if seen:
            raise Refusal(
                "UNRESOLVED",
                "client_order_id",
                f"the broker's books show it (tickets {seen}), though its end is not known yet",
                "wait: it will be resolved from the books",
            )
        message = f"declared not executed by {request.client}: {request.reason}"
        answer = self._result(entry, request.id, "REJECTED", 0, message[:256], "operator")
        self._note("order.declared", client=request.client, client_order_id=request.client_order_id)
        return self._settle(entry, answer)

    # --- results -------------------------------------------------------------------------------------------

    def _from_books(self, entry: Entry, verdict: Verdict, retcode: int) -> OrderResult:
        blank = self._result(entry, entry.request.id, verdict.outcome, retcode, verdict.message, "books")
        return msgspec.structs.replace(
            blank,
            order=verdict.order,
            deals=verdict.deals,
            position=verdict.position,
            position_ticket=self._ticket_of(verdict.position),
            volume=verdict.volume,
            price=verdict.price,
        )

    def _from_reply(self, entry: Entry, outcome: Outcome, result: TradeResult) -> OrderResult:
        blank = self._result(entry, entry.request.id, outcome, result.retcode, name(result.retcode), "reply")
        filled = outcome in ("FILLED", "PARTIAL")
        return msgspec.structs.replace(
            blank,
            order=result.order,
            deals=[result.deal] if result.deal else [],
            volume=result.volume if filled else 0.0,
            price=result.price if filled else 0.0,
        )

    def _ticket_of(self, identifier: int) -> int:
        if not identifier:
            return 0
        try:
            return next((p.ticket for p in self._broker.books().positions if p.identifier == identifier), 0)
        except BrokerError:
            return 0

    def _result(
        self, entry: Entry, request_id: str, outcome: Outcome, retcode: int, message: str, evidence: Evidence
    ) -> OrderResult:
        request = entry.request
        topic = trade_topic(request.magic)
        return OrderResult(
            v=VERSION,
            id=request_id,
            client_order_id=request.client_order_id,
            outcome=outcome,
            retcode=retcode,
            message=message,
            order=request.order if isinstance(request, ask.OrderCancel) else 0,
            deals=[],
            position=0,
            position_ticket=0,
            volume_requested=getattr(request, "volume", None) or 0.0,
            volume=0.0,
            price=0.0,
            comment_id=entry.comment_id,
            epoch=request.lease_epoch,
            evidence=evidence,
            replayed=False,
            time_msc=entry.sent_msc,
            stream=self._stream.name,
            seq=self._stream.last(topic),
        )


def trade_request(terms: ask.OrderTerms, comment: str, limits: Limits) -> TradeRequest:
    """The broker's form of an order. Pure."""
    market = terms.type == "MARKET"
    kind: OrderType = terms.side if market else f"{terms.side}_{terms.type}"  # type: ignore[assignment]
    return TradeRequest(
        action="DEAL" if market else "PENDING",
        magic=terms.magic,
        comment=comment,
        symbol=terms.symbol,
        type=kind,
        volume=terms.volume,
        price=terms.price or 0.0,
        sl=terms.sl or 0.0,
        tp=terms.tp or 0.0,
        deviation=risk.slippage_points(terms.max_slippage_points, limits),
        filling=terms.filling,
        expiration_msc=terms.expiration_msc or 0,
    )


def _cancel_request(request: ask.OrderCancel, books: Books) -> TradeRequest:
    order = next((o for o in books.orders if o.ticket == request.order), None)
    if order is None:
        raise Refusal(
            "UNKNOWN_ORDER",
            "order",
            f"there is no working order {request.order}",
            "take a snapshot: it was filled, cancelled or has expired",
            final=True,
        )
    if order.magic != request.magic:
        raise _not_yours("order", request.order, order.magic, request.magic)
    return TradeRequest(action="REMOVE", magic=request.magic, comment="", filling=None, order=order.ticket)


def _own_position(request: ask.PositionClose, books: Books) -> Position:
    # a ticket is as good as the identifier: it is a later ticket of the same position, never another's number
    position = next((p for p in books.positions if request.position in (p.identifier, p.ticket)), None)
    if position is None:
        raise Refusal(
            "UNKNOWN_POSITION",
            "position",
            f"there is no open position {request.position}",
            "take a snapshot: it was closed meanwhile",
            final=True,
        )
    if position.magic != request.magic:
        raise _not_yours("position", request.position, position.magic, request.magic)
    return position


def _not_yours(field: str, ticket: int, owner: int, magic: int) -> Refusal:
    return Refusal(
        "FORBIDDEN",
        field,
        f"{field} {ticket} belongs to magic {owner}, not to {magic}",
        "touch only what carries your own magic number",
        final=True,
    )


def _outcome_of(trade: TradeRequest, result: TradeResult) -> Outcome | None:
    """Outcome of a plain success reply whose traces the books do not show (yet)."""
    if trade.action == "PENDING":
        return "PLACED" if result.order and result.retcode == DONE else None
    if trade.action == "REMOVE" or not result.deal:
        return None  # "done" without a deal, or a cancel that the books do not confirm: ask again
    return "FILLED" if result.volume >= trade.volume - _EPSILON else "PARTIAL"


def _reason(result: TradeResult) -> str:
    """Why a request was refused: the code's meaning, and the broker's own words where it has others."""
    known = name(result.retcode)
    said = result.comment.strip()
    return known if said.lower() in ("", known) else f"{known}: {said}"[:256]


def broker_failed(error: BrokerError) -> Refusal:
    """The refusal for a broker that could not be asked."""
    return Refusal(
        "BROKER",
        "",
        f"the broker could not be asked: {error}",
        "nothing was sent; try again with the same client order id",
        retry_ms=500,
    )


def _journal_failed(error: JournalError) -> Refusal:
    return Refusal(
        "INTERNAL",
        "journal",
        f"the journal cannot be written: {error}",
        "nothing was sent; free disk space on the gateway, then try again with the same client order id",
        retry_ms=5000,
    )
