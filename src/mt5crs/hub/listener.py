"""Listens to one gateway, on a thread of its own: books read, events taken, gaps closed, all of it kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from mt5crs.client.connection import Peer
from mt5crs.client.errors import GatewayError, KeyRefusedError
from mt5crs.client.gateway import GatewayClient, Patience
from mt5crs.client.subscription import Sequence, Subscription
from mt5crs.hub.figures import Figures
from mt5crs.hub.picture import Picture, account_of
from mt5crs.hub.store import Book, Store, made
from mt5crs.protocol import curve, replies, requests
from mt5crs.protocol.events import (
    ACCOUNT_TOPIC,
    CONTROL_TOPIC,
    HEARTBEAT_TOPIC,
    AnyEvent,
    ControlEvent,
    DealEvent,
    Heartbeat,
    OrderEvent,
    PositionClosedEvent,
    PositionEvent,
)
from mt5crs.protocol.fields import MAX_HISTORY
from mt5crs.protocol.records import Deal, Order
from mt5crs.service.database import UnusableError
from mt5crs.service.logs import Log

State = Literal["starting", "listening", "silent", "unreachable", "refused", "not_kept"]
TOPICS = (HEARTBEAT_TOPIC, ACCOUNT_TOPIC, CONTROL_TOPIC, "trade.")
_OVERLAP_MSC = 600_000
"""A broker books a deal a moment after its time; what is read twice is kept once."""
_DAY_MSC = 86_400_000
_HEARD_EVERY_S = 5.0
_POLL_S = 0.5
_PATIENCE = Patience(timeout_s=5.0, attempts=1, pause_s=0.0)
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_CLOSED = frozenset({"CANCELED", "FILLED", "REJECTED", "EXPIRED"})


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often things are done, in seconds, and how much history is read at first, in days."""

    recheck_s: float
    status_s: float
    silence_s: float
    sample_s: float
    first_history_days: int


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a gateway at a moment; None is unknown. Times are Unix time."""

    state: State
    reason: str
    since: float
    heard_at: float | None
    synced_at: float | None
    gateway_state: str | None
    stream: str
    picture: Picture | None
    status: replies.StatusState | None
    status_at: float | None
    phases: dict[int, replies.PhaseState]


class Listener:
    """One gateway. `start`, then `known` from any thread; `stop` and `join` at the end."""

    def __init__(
        self,
        name: str,
        peer: Peer,
        pace: Pace,
        store: Store,
        figures: Figures,
        log: Log,
        *,
        context: curve.Context,
        told: Callable[[str, list[dict[str, Any]], bool], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`told(name, deals, books)` is called whenever something was heard: with the deals that are new, and
        whether more than the account's money has changed.
        """
        self.name = name
        self._pace, self._store, self._figures, self._log = pace, store, figures, log
        self._told, self._clock = told, clock
        self._peer, self._context = peer, context
        self._client = GatewayClient(peer, _PATIENCE, context=context)
        self._sequence = Sequence(None)
        self._lock = threading.Lock()
        self._known = Known(
            state="starting",
            reason="",
            since=clock(),
            heard_at=None,
            synced_at=None,
            gateway_state=None,
            stream="",
            picture=None,
            status=None,
            status_at=None,
            phases={},
        )
        self._need: str | None = "the Hub was not running"
        self._unheard_since: float | None = None
        self._failed = 0
        self._next_sync = self._next_status = 0.0
        self._sampled_at = self._heard_kept = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"listener-{name}", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def known(self) -> Known:
        """What is known now."""
        with self._lock:
            return self._known

    def _know(self, **fields: Any) -> None:
        with self._lock:
            if "state" in fields and fields["state"] != self._known.state:
                fields.setdefault("since", self._clock())
            self._known = msgspec.structs.replace(self._known, **fields)

    # ---- the loop ----

    def _run(self) -> None:
        subscription = Subscription(self._peer, TOPICS, self._context)
        try:
            while not self._stopping.is_set():
                try:
                    self._once(subscription)
                except UnusableError as error:
                    # Nothing is lost: it is read again from the books once it can be kept.
                    self._fail("not_kept", str(error))
                    self._next_sync = time.monotonic() + _PAUSES_S[-1]
        finally:
            subscription.close()
            self._client.close()

    def _once(self, subscription: Subscription) -> None:
        if time.monotonic() >= self._next_sync:
            self._sync()
        arrived = subscription.receive(_POLL_S)
        if arrived:
            self._take(arrived)
        if subscription.silent_for_s > self._pace.silence_s:
            subscription.reopen()
            self._fail("silent", f"no event arrives from {self._peer.host}, port {self._peer.pub_port}")
        if self._known.state == "listening" and time.monotonic() >= self._next_status:
            self._ask_status()

    def _fail(self, state: State, reason: str) -> None:
        """From now on nothing may be counted as heard; the books are read again as soon as it works."""
        if self._need is None:
            self._need, self._failed, self._next_sync = reason, 0, 0.0
            self._unheard_since = self._known.heard_at
        if self._known.state != state:
            self._log.warning("gateway.not_heard", gateway=self.name, state=state, reason=reason)
        self._know(state=state, reason=reason, gateway_state=None, status=None, phases={})
        self._told(self.name, [], True)

    # ---- books ----

    def _sync(self) -> None:
        """Read the books and close the gap, if there is one."""
        try:
            fresh = self._read()
        except GatewayError as error:
            self._figures.syncs.inc(self.name, "failed")
            pause = _PAUSES_S[min(self._failed, len(_PAUSES_S) - 1)]
            self._failed += 1
            self._fail("refused" if isinstance(error, KeyRefusedError) else "unreachable", str(error))
            self._next_sync = time.monotonic() + pause
            return
        self._figures.syncs.inc(self.name, "good")
        self._close_gap()
        self._failed, self._need = 0, None
        self._next_sync = time.monotonic() + self._pace.recheck_s
        if self._known.state != "listening":
            self._log.info("gateway.heard", gateway=self.name, deals=len(fresh))
            self._next_status = 0.0
        self._know(state="listening", reason="")
        self._told(self.name, fresh, True)

    def _read(self) -> list[dict[str, Any]]:
        """A snapshot with the history since what is kept; returns the deals that are new."""
        head = self._client.snapshot(0, history_since_msc=None)
        account = account_of(head.identity)
        book = self._store.book(self.name, account)
        if book is None:
            since = max(0, head.time_msc - self._pace.first_history_days * _DAY_MSC)
        else:
            # A broker's clock that was set back must not hide what it books from now on.
            since = max(0, min(book.through_msc, head.time_msc) - _OVERLAP_MSC)
        snapshot = self._client.snapshot(0, history_since_msc=since)
        if account_of(snapshot.identity) != account:
            return self._read()  # the account was changed in this very moment
        deals, closed = snapshot.deals, snapshot.closed_orders
        if not snapshot.history_complete:
            deals, closed = self._history(since)
        times = [each.time_msc for each in deals] + [each.time_done_msc for each in closed]
        # A day back, not now: the broker's deals and its clock need not agree.
        through = max([since, snapshot.time_msc - _DAY_MSC, *times])
        kept = Book(account, snapshot.identity.currency, since, through)
        fresh, _ = self._store.keep_books(self.name, kept, deals, closed)
        self._sequence.reset(snapshot.stream, snapshot.seqs)
        now = self._clock()
        self._know(picture=Picture(snapshot, now), stream=snapshot.stream, synced_at=now)
        self._hear(now)
        self._sample(now)
        return [made(self.name, "deal", each) for each in fresh]

    def _history(self, since: int) -> tuple[list[Deal], list[Order]]:
        """All of a history that does not fit one reply."""
        deals: dict[int, Deal] = {}
        closed: dict[int, Order] = {}
        while True:
            page = self._client.call(
                requests.HistoryQuery, replies.HistoryState, magic=0, since_msc=since, limit=MAX_HISTORY
            )
            before = len(deals) + len(closed)
            deals.update((deal.ticket, deal) for deal in page.deals)
            closed.update((order.ticket, order) for order in page.closed_orders)
            if page.complete:
                return list(deals.values()), list(closed.values())
            # Both lists are cut at their own end, so only what both reach is complete.
            ends = [
                times[-1]
                for times in (
                    [deal.time_msc for deal in page.deals],
                    [order.time_done_msc for order in page.closed_orders],
                )
                if len(times) >= MAX_HISTORY
            ]
            if len(deals) + len(closed) == before or not ends:
                raise GatewayError(f"the history since {since} does not advance beyond {MAX_HISTORY} deals")
            since = max(since, min(ends))

    def _close_gap(self) -> None:
        if self._need is None:
            return
        heard = self._store.heard(self.name)
        since = self._unheard_since or (heard.last if heard else None)
        if since is not None and heard is not None:
            self._store.keep_gap(self.name, since, self._clock(), self._need)
            self._figures.gaps.inc(self.name)
            self._log.info("gap.closed", gateway=self.name, since=since, reason=self._need)
        self._unheard_since = None
        self._store.keep_heard(self.name, self._clock())

    # ---- events ----

    def _take(self, arrived: list[tuple[str, AnyEvent]]) -> None:
        now = self._clock()
        events: list[dict[str, Any]] = []
        deals: list[Deal] = []
        closed: list[Order] = []
        lost: str | None = None
        known = self._known
        for topic, event in arrived:
            self._figures.events.inc(self.name)
            if self._need is not None:
                continue  # the snapshot that is due contains it
            if isinstance(event, Heartbeat):
                self._know(gateway_state=event.state)
            elif event.stream == known.stream and event.seq <= self._sequence.seen(topic):
                continue
            lost = self._sequence.accept(topic, event)
            if lost is not None:
                break
            if known.picture is not None and not isinstance(event, Heartbeat):
                known.picture.take(event, now)
            self._sort(event, events, deals, closed)
        if self._need is None and known.picture is not None:
            if events:
                self._store.keep_live(self.name, account_of(known.picture.identity), events, deals, closed)
            if lost is None:
                self._hear(now)
                self._sample(now)
        if lost is not None:
            self._need, self._unheard_since = lost, known.heard_at
            self._failed, self._next_sync = 0, 0.0
            self._log.warning("events.missed", gateway=self.name, reason=lost)
        books = bool(events or lost) or self._known.gateway_state != known.gateway_state
        self._told(self.name, [event for event in events if event["kind"] == "deal"], books)

    def _sort(
        self, event: AnyEvent, events: list[dict[str, Any]], deals: list[Deal], closed: list[Order]
    ) -> None:
        if isinstance(event, DealEvent):
            deals.append(event.deal)
            events.append(made(self.name, "deal", event.deal))
        elif isinstance(event, OrderEvent):
            if event.order.state in _CLOSED:
                closed.append(event.order)
            events.append(made(self.name, "order", event.order))
        elif isinstance(event, PositionEvent):
            events.append(made(self.name, "position", event.position))
        elif isinstance(event, PositionClosedEvent):
            gone = {"magic": str(event.magic), "identifier": str(event.identifier)}
            events.append(self._event("position_closed", position_closed=gone))
        elif isinstance(event, ControlEvent):
            halts = [{"magic": str(each.magic), "reason": each.reason} for each in event.halts]
            events.append(self._event("halts", halts=halts))

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"at": self._clock(), "gateway": self.name, "kind": kind, **fields}

    def _hear(self, now: float) -> None:
        self._know(heard_at=now)
        if abs(now - self._heard_kept) >= _HEARD_EVERY_S and self._need is None:
            self._store.keep_heard(self.name, now)
            self._heard_kept = now

    def _sample(self, now: float) -> None:
        picture = self._known.picture
        if picture is None or abs(now - self._sampled_at) < self._pace.sample_s:
            return
        self._store.keep_sample(self.name, account_of(picture.identity), now, picture.account)
        self._sampled_at = now

    # ---- what only requests tell ----

    def _ask_status(self) -> None:
        """Halts, leases, guards, and the phase of every magic number that has limits there."""
        self._next_status = time.monotonic() + self._pace.status_s
        try:
            status = self._client.call(requests.Status, replies.StatusState, magic=0)
            phases = {
                guard.magic: self._client.call(requests.PhaseQuery, replies.PhaseState, magic=guard.magic)
                for guard in status.guards
            }
        except GatewayError as error:
            # Events tell whether it is there; until it answers, this is unknown.
            self._log.warning("gateway.no_status", gateway=self.name, reason=str(error))
            self._know(status=None, status_at=None, phases={})
        else:
            self._know(status=status, status_at=self._clock(), phases=phases, gateway_state=status.state)
        self._told(self.name, [], True)
