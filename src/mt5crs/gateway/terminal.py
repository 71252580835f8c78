"""The one thread that talks to the broker: takes jobs from a bounded queue, looks for changes in between."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from mt5crs.broker.interface import BrokerError
from mt5crs.broker.remote import AUTHORISATION_FAILED, NO_CONNECTION, RemoteBroker
from mt5crs.protocol import requests as ask
from mt5crs.protocol.records import Identity
from mt5crs.protocol.replies import Reply
from mt5crs.service.elapsed import elapsed_s

from .attempts import Attempts
from .job import Job
from .lanes import Lanes
from .order_manager import OrderManager
from .outbox import Delivery, Outbox
from .reader import Query, Reader
from .reading_time import ReadingTime
from .refusal import Refusal
from .waker import Waker
from .watch import Watch

State = Literal[
    "starting",
    "connected",
    "hung",
    "reconnecting",
    "login_failed",
    "other_account",
    "offline",
    "trading_off",
    "failing",
]
"""What the terminal is like. offline: it runs without its trade server; failing: it answers with errors."""


class View(msgspec.Struct, frozen=True):
    """What other threads may know about the terminal."""

    state: State
    connected: bool
    ready: bool
    reason: str
    identity: Identity | None


class Terminal:
    """Owns the broker. `submit` and `overdue` are called by the network thread, the rest runs on its own
    thread.
    """

    def __init__(
        self,
        broker: RemoteBroker,
        order_manager: OrderManager,
        reader: Reader,
        watch: Watch,
        outbox: Outbox,
        *,
        queue_limit: int,
        client_queue_limit: int,
        poll_interval_s: float,
        timeout_s: float,
        symbols: list[str],
        note: Callable[..., None],
    ) -> None:
        self._broker = broker
        self._order_manager = order_manager
        self._reader = reader
        self._watch = watch
        self._outbox = outbox
        self._timeout_s = timeout_s
        self._symbols = symbols
        self._note = note
        self._lock = threading.Lock()
        self._waker = Waker(poll_interval_s)
        self._queue = Lanes(queue_limit, client_queue_limit, ReadingTime())
        self._calls: deque[Callable[[], None]] = deque()
        self._running: Job | None = None
        self._stopping = False
        self._death = ""
        self._view = View("starting", False, False, "the terminal is being started", None)
        self._attempts = Attempts()
        self._told = ""
        self._missing: dict[str, str] = {}
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)

    # --- for the network thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_until_loaded(self, timeout_s: float) -> bool:
        """Wait for the first look at the books; False when it took longer."""
        return self._loaded.wait(timeout_s)

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Refusal BUSY when the terminal hangs or the queue is full."""
        with self._lock:
            if self._hung():
                raise self._busy("the terminal has not answered for too long")
            full = self._queue.full(job)
            if full is not None:
                raise self._busy(full, "queue")
            self._queue.add(job)
        self._waker.wake()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have something small done on the terminal's thread."""
        with self._lock:
            self._calls.append(call)
        self._waker.wake()

    def overdue(self) -> list[tuple[Job, Refusal]]:
        """Jobs whose client should be told BUSY now; a waiting one is thereby taken back, it will not be
        done.
        """
        found = []
        with self._lock:
            now = elapsed_s()
            running = self._running
            if running is not None and not running.answered and self._hung():
                running.answered = True
                found.append(
                    (running, self._busy("the terminal is working on this request and does not answer"))
                )
            for job in self._queue.overdue(now - self._timeout_s):
                job.state = "abandoned"
                found.append((job, self._busy("the terminal did not get to this request in time")))
        return found

    def queue_length(self) -> int:
        """Requests waiting."""
        return len(self._queue)

    def occupied(self) -> bool:
        """Whether a request waits or is being worked on."""
        return len(self._queue) > 0 or self._running is not None

    def hung(self) -> bool:
        """Whether the call that runs now takes longer than allowed."""
        with self._lock:
            return self._hung()

    def view(self) -> View:
        """The last known state of the terminal."""
        return self._view

    def state(self) -> State:
        """What the terminal is like now."""
        state = self._view.state
        connecting = state in ("starting", "reconnecting", "login_failed")  # which may well take its time
        return "hung" if self.hung() and not connecting else state

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def death(self) -> str:
        """Why the thread has ended by itself; empty if it has not."""
        return self._death

    def stop(self, timeout_s: float) -> bool:
        """Finish the job at hand and end; False when the terminal hangs longer than that."""
        with self._lock:
            self._stopping = True
        self._waker.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._waker.close()
        return True

    def _hung(self) -> bool:
        return self._broker.waiting_s() > self._timeout_s

    @staticmethod
    def _busy(message: str, field: str = "terminal") -> Refusal:
        return Refusal(
            "BUSY",
            field,
            message,
            "ask again with the same client order id: what was carried out is never carried out twice",
            retry_ms=500,
        )

    # --- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                if self._broker.down():
                    self._connect()
                job = self._next()
                if job is not None:
                    self._do(job)
                    self._outbox.ring()
                elif not (self._stopping or self._broker.down()):
                    self._poll()
        except BaseException as error:
            self._death = f"the terminal's thread died: {error!r}"
            self._view = View("failing", False, False, self._death, None)
            self._note("terminal.died", error=repr(error))
            raise
        finally:
            self._broker.close()

    def _connect(self) -> None:
        """Connect, unless it is too early for another attempt."""
        if not self._attempts.due(time.monotonic()):
            return
        self._lost(self._broker.down())
        try:
            self._broker.start()
        except BrokerError as error:
            refused = error.code == AUTHORISATION_FAILED
            pause_s = self._attempts.failed(time.monotonic(), refused=refused)
            state = "login_failed" if refused else self._connecting()
            reason = f"the terminal did not start: {error}"
            self._view = View(state, False, False, reason, self._view.identity)
            self._note("terminal.not_started", error=str(error), next_attempt_s=pause_s)
        else:
            self._attempts.succeeded(time.monotonic())
            self._poll()

    def _connecting(self) -> State:
        return "reconnecting" if self._loaded.is_set() else "starting"

    def _lost(self, reason: str) -> None:
        """Have others know that the connection is gone."""
        # a refused login stays one until an attempt says otherwise
        state = "login_failed" if self._view.state == "login_failed" else self._connecting()
        self._view = View(state, False, False, reason, self._view.identity)

    def _next(self) -> Job | None:
        """The next job, or None when it is time to look for changes. Runs what `call_soon` got meanwhile."""
        while not self._stopping:
            call = job = None
            with self._lock:
                if self._calls:
                    call = self._calls.popleft()
                elif (job := self._queue.take()) is not None:
                    job.state = "running"
                    self._running = job
            if job is not None:
                return job
            if call is not None:
                call()
            elif not self._waker.wait():
                return None
        return None

    def _do(self, job: Job) -> None:
        request, began = job.request, elapsed_s()
        try:
            reply = self._reply(request, job)
        except Refusal as refusal:
            reply = refusal.reply(request.id)
        except Exception as error:  # an error of ours: typed answer, and the gateway stays up
            self._note("internal_error", request=type(request).__name__, error=repr(error))
            reply = Refusal(
                "INTERNAL",
                "",
                f"the gateway failed on this request: {type(error).__name__}",
                "see the gateway's log; ask ORDER_QUERY what became of an order",
            ).reply(request.id)
        frames = job.encode(reply)
        with self._lock:
            self._running = None
            self._queue.done(job, elapsed_s() - began)
            answered, job.answered, job.state = job.answered, True, "finished"
        if not answered:
            self._outbox.put(Delivery(job.reply_to, frames))

    def _reply(self, request: ask.AnyRequest, job: Job) -> Reply:
        if isinstance(request, Query):
            return self._reader.answer(request)
        if isinstance(request, (ask.OrderSend, ask.OrderCancel, ask.PositionClose)):
            return self._order_manager.submit(request, job.waited_ms, operator=job.operator, plain=job.plain)
        if isinstance(request, ask.OrderQuery):
            return self._order_manager.query(request)
        if isinstance(request, ask.OrderCheck):
            return self._order_manager.check(request)
        if isinstance(request, ask.OrderResolve):
            return self._order_manager.declare(request)
        if isinstance(request, (ask.PhaseQuery, ask.PhaseSet)):
            return self._order_manager.phase(request)
        raise Refusal("UNKNOWN_KIND", "kind", "not a request for the terminal", "see docs/protocol.md")

    def _poll(self) -> None:
        """Look for changes, quotes and the fate of unresolved submissions."""
        identity = self._view.identity
        try:
            identity = self._broker.identity()
            self._order_manager.require_account(identity)
            self._order_manager.look()
            missing = self._watch.observe_ticks(self._symbols)
            lost = self._broker.down()
            if lost:
                raise BrokerError(NO_CONNECTION, lost)
            self._tell_quotes(missing)
            self._order_manager.resolve_all()
            self._order_manager.keep_seen()
            self._loaded.set()
            self._told = ""
            self._view = self._judge(identity)
        except Refusal as refusal:
            self._view = View("other_account", True, False, refusal.message, identity)
        except BrokerError as error:
            reason = f"the terminal could not be asked: {error}"
            self._view = View("failing", False, False, reason, identity)
            if self._broker.down():
                self._lost(reason)
            self._tell("terminal.unanswered", str(error))
        except Exception as error:  # of ours, over something that the broker showed: it may go again
            reason = f"what the terminal shows cannot be worked with: {error!r}"
            self._view = View("failing", False, False, reason, identity)
            self._tell("internal_error", repr(error))
        finally:
            self._outbox.ring()

    def _tell(self, event: str, error: str) -> None:
        """Log what went wrong in a look, once until something else does or a look succeeds."""
        if error != self._told:
            self._told = error
            self._note(event, request="look", error=error)

    def _tell_quotes(self, missing: dict[str, str]) -> None:
        """Log once which symbols have no quote, and again when they have one."""
        for symbol in missing.keys() - self._missing.keys():
            self._note("quote.missing", symbol=symbol, error=missing[symbol])
        for symbol in self._missing.keys() - missing.keys():
            self._note("quote.back", symbol=symbol)
        self._missing = missing

    def quotes_missing(self) -> list[str]:
        """Symbols of TICK_SYMBOLS that had no quote at the last look. Safe to call from another thread."""
        return sorted(self._missing)

    def _judge(self, identity: Identity) -> View:
        try:
            self._order_manager.require_ready(identity)
        except Refusal as refusal:
            state: State = "trading_off" if identity.connected else "offline"
            return View(state, identity.connected, False, refusal.message, identity)
        return View("connected", True, True, "", identity)
