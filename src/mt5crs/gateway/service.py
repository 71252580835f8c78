"""The gateway put together: what is opened, started and closed, in which order."""

import contextlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from mt5crs.broker import process
from mt5crs.broker.interface import BrokerError
from mt5crs.broker.mt5 import terminal_of
from mt5crs.broker.process import Process
from mt5crs.broker.remote import Cause, Deadlines, RemoteBroker, opening_of
from mt5crs.broker.sim.profile import Profile, Simulator
from mt5crs.broker.wine import windows_path, wine_of
from mt5crs.protocol import addresses
from mt5crs.protocol.curve import Context, Socket, new_keypair, public_of, secure_server
from mt5crs.service import notify, sole
from mt5crs.service.bounded import BoundedNotes
from mt5crs.service.elapsed import elapsed_s
from mt5crs.service.endpoint import Endpoint, Health
from mt5crs.service.held import HeldSockets
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.settings.gateway import GatewaySettings
from mt5crs.settings.schema import fields

from .account_figures import AccountFigures, DayBest, limits_used
from .authenticator import Authenticator
from .clients import BARRED, WRONG_ADDRESS, Clients
from .connection_guard import ConnectionGuard
from .connections import Connections
from .control import Control
from .control_service import ControlService
from .journal import Journal
from .ledger import Ledger
from .legacy import LegacyAdapter, plain_publisher, plain_server
from .listen import Listener, cannot_listen
from .metrics import GatewayMetrics, free_ratio
from .order_manager import OrderManager
from .outbox import Outbox
from .phase_store import PhaseStore
from .phases import Phases
from .quota import Quota
from .reader import Reader
from .selftest import SelfTest
from .server import Server
from .stream import Stream
from .terminal import Terminal
from .unfilled import Unfilled
from .watch import Watch

_SELFTEST_INTERVAL_S = 5.0
_STOP_TIMEOUT_S = 5.0
_WAITING, _UNREAD, _BACKLOG = 64, 64, 512
"""Messages of one connection that may wait to be read, replies that it has not read, and connections that
the kernel keeps until they are accepted."""
_MAX_SUBSCRIPTION_BYTES = 512
"""Frame of a handshake (290 bytes) or of a topic, encrypted."""
_DRAIN_TIMEOUT_S = 1.0
"""For how long requests that were taken are still answered when the gateway is stopped."""


_LOCK_PATIENCE_S = 2.0
_SIM_START_S = 30.0
_MT5_START_MARGIN_S = 30.0
"""The package's `initialize` may outlive its own timeout."""
_PREFIX_S = 180.0
"""Wine makes a prefix at its first start: 20 s of computing."""


def open_broker(
    settings: GatewaySettings, lost: Callable[[Cause, str, str], None]
) -> tuple[RemoteBroker, int, str]:
    """The configured broker in a process of its own, and login and server of the only account it may show."""
    start_s, under_wine = _SIM_START_S, settings.platform == "wine"
    state = windows_path(settings.state_dir) if under_wine else settings.state_dir
    if settings.backend == "mt5":
        login, server = settings.mt5_login, settings.mt5_server
        opening = opening_of("mt5", state, terminal_of(settings))
        start_s = settings.mt5_timeout_s + _MT5_START_MARGIN_S
    else:
        login, server = settings.sim_login, settings.sim_server
        opening = opening_of("sim", state, _simulator(settings, state))
    broker = RemoteBroker(
        _spawner(settings),
        opening,
        Deadlines(
            start_s=start_s
            + (_PREFIX_S if under_wine and not Path(wine_of(settings).prefix).exists() else 0.0),
            read_s=settings.terminal_read_deadline_s,
            order_s=settings.terminal_order_deadline_s,
        ),
        lost=lost,
        other_clock=under_wine,
    )
    return broker, login, server


def _spawner(settings: GatewaySettings) -> Callable[[], Process]:
    """What starts a terminal process, which may know neither these settings nor the service manager."""
    hidden = [each.env for each in fields(GatewaySettings) if each.env is not None]
    if settings.platform == "native":
        return lambda: Process(process.command(process.MODULE), process.environment(hidden))
    from mt5crs.wine_terminal.readiness import Tied, is_held  # of Linux alone

    wine = wine_of(settings)
    prefix = Path(wine.prefix)
    tied = Tied(prefix)

    def spawn() -> Process:
        problem = wine.problem()
        if not problem and wine.display and not is_held(prefix):
            problem = (
                "the unit mt5crs-terminal, which has the terminal and its display, is not ready: "
                "see `journalctl -u mt5crs-terminal`"
            )
        if problem:
            raise OSError(problem)
        environ = wine.environment(process.environment(hidden))
        child = Process(wine.command(process.MODULE, os.getpid()), environ)
        if wine.display:
            tied.tie(child.kill)
        return child

    return spawn


def _simulator(settings: GatewaySettings, state: str) -> Simulator:
    return Simulator(
        directory=f"{state}/sim",
        profile=Profile(
            login=settings.sim_login,
            server=settings.sim_server,
            trade_mode=settings.sim_trade_mode,
            margin_mode=settings.sim_margin_mode,
            balance=settings.sim_balance,
            leverage=settings.sim_leverage,
            seed=settings.sim_seed,
        ),
        allow_faults=settings.sim_faults,
    )


class _Doors:
    """Makes the listening sockets, each where it belongs and, while a deployment moves that, where it was."""

    def __init__(self, settings: GatewaySettings, note: Callable[..., None]) -> None:
        self._held = HeldSockets()
        self._note = note
        self._address, self._metrics_address = settings.bind, settings.metrics_address
        self._ports = {
            "requests": settings.port,
            "events": settings.pub_port,
            "legacy-requests": settings.legacy_port,
            "legacy-events": settings.legacy_pub_port,
        }
        self._in_use = (*self._ports.values(), settings.metrics_port)

    def open(self, socket: Socket, name: str) -> Listener:
        """Raises OSError that names address and port."""
        port = self._ports[name]
        try:
            listener = Listener(socket, self._address, port, self._held.tcp(self._address, port))
        except OSError as error:
            if error.strerror is None:  # says it all already
                raise
            raise cannot_listen(addresses.with_port(self._address, port), error.strerror) from error
        former = self._held.former(name, self._address, self._in_use)
        if former is not None:
            try:
                listener.also(*former, self._held.tcp(*former))
            except OSError as error:  # whoever has it now: what is wanted is served all the same
                self._not_served(former, error)
        return listener

    def metrics_of_before(self, registry: Registry, health: Callable[[], Health]) -> Endpoint | None:
        """Figures and health where they were: Prometheus is told last where they are now."""
        former = self._held.former("metrics", self._metrics_address, self._in_use, "metrics-address")
        if former is None:
            return None
        try:
            return Endpoint(*former, registry, health)
        except OSError as error:
            self._not_served(former, error)
            return None

    def _not_served(self, former: tuple[str, int], error: OSError) -> None:
        self._note("former_port.not_served", at=addresses.with_port(*former), error=str(error))

    def close_others(self) -> None:
        """Give up what was passed on and is not needed any more."""
        self._held.drop_unclaimed()


class PartDiedError(Exception):
    """The thread of the terminal or of the authenticator has ended by itself; the text says which and why."""


class Gateway:
    """One gateway. `__init__` opens and binds, `run` serves until `stop`, `close` lets go."""

    def __init__(self, settings: GatewaySettings, log: Log) -> None:
        """Open books, load clients, bind. Raises OSError, ClientsFileError, sqlite3.Error."""
        self._settings = settings
        self._log = log
        self._note_bounded = BoundedNotes(self._note)
        self._cleanup = contextlib.ExitStack()
        try:
            self._open(settings)
        except BaseException:
            self._cleanup.close()
            raise

    def _open(self, settings: GatewaySettings) -> None:
        state = Path(settings.state_dir)
        state.mkdir(parents=True, exist_ok=True)
        # before anything in it is opened: two gateways would give the same epochs, and not see their halts
        lock = sole.take(state / "gateway.lock", _LOCK_PATIENCE_S)
        self._cleanup.callback(os.close, lock)
        self.metrics = GatewayMetrics()
        self.metrics.broker_clock_limit.set(settings.max_clock_skew_s)
        self.metrics.disk.from_callable(lambda: free_ratio(state))
        own_public, own_secret = new_keypair()
        self.clients = Clients(
            Path(settings.clients_file), own_public, self.metrics, self._note, lambda: self.server.kick()
        )
        broker, login, server = open_broker(settings, self._terminal_lost)
        try:
            broker.launch()  # gets ready while everything else here does
        except BrokerError as error:
            self._note("terminal.not_started", error=str(error))
        self._cleanup.callback(broker.close)
        account = f"{login}@{server}"
        had = {name: (state / name).exists() for name in ("control.db", "journal.db")}
        self.control = Control(state / "control.db", account)
        self._cleanup.callback(self.control.close)
        self._journal = Journal(state / "journal.db", account)
        self._cleanup.callback(self._journal.close)
        if not had["journal.db"]:
            self._journal.begins_at_nothing(time.time_ns() // 1_000_000)
        if had["journal.db"] and not had["control.db"]:
            self.control.begin_again(self._journal.epochs())
            self._note("control.lost", halted=True)
        elif had["control.db"] and not had["journal.db"] and self.control.leases():
            self.control.halt_journal_lost()
            self._note("journal.lost", halted=True)
        context: Context = zmq.Context()
        self._cleanup.callback(context.destroy, linger=0)
        self._outbox = Outbox()
        self.stream = Stream(os.urandom(8).hex(), self._outbox.put)
        ledger = Ledger(broker)
        self._unfilled = Unfilled()
        self.phases = Phases(
            PhaseStore(state / "control.db", account),
            self.control,
            broker,
            account,
            self._note,
            signers=settings.phase_signers if settings.phases else None,
            ceiling=settings.highest_profile,
            unfilled=self._unfilled,
            monotonic=elapsed_s,
        )
        self._cleanup.callback(self.phases.close)
        self._watch = watch = Watch(broker, self.stream, ledger)
        self.order_manager = OrderManager(
            broker,
            self._journal,
            self.control,
            watch,
            ledger,
            self.stream,
            lambda: self.clients.access().limits,
            login,
            server,
            self._note,
            settings.account_phase,
            phases=self.phases,
            books_lag_s=settings.books_lag_s,
            resolve_after_s=settings.resolve_after_s,
            max_clock_skew_s=settings.max_clock_skew_s,
            quote_life_s=settings.quote_life_s,
            answered=self.metrics.order_seconds.observe,
            dealt=self._count_deal,
            unfilled=self._unfilled,
        )
        self._best = DayBest()
        reader = Reader(broker, self.order_manager, watch, ledger, self.control, self.stream)
        self.terminal = Terminal(
            broker,
            self.order_manager,
            reader,
            watch,
            self._outbox,
            queue_limit=settings.queue_limit,
            client_queue_limit=settings.client_queue_limit,
            poll_interval_s=settings.poll_interval_s,
            timeout_s=settings.terminal_timeout_s,
            symbols=settings.tick_symbols,
            note=self._note,
        )
        self.authenticator = Authenticator(
            context, self.clients.objection, self.clients.known_address, self._connection_refused
        )
        self.authenticator.start()  # before bind: from the first moment on, handshakes are judged
        self._cleanup.callback(self.authenticator.stop)
        self.connection_guard = ConnectionGuard(
            context, Connections(settings.connections_per_address), self.metrics, self._connection_cut
        )
        self.metrics.most_of_one.set(settings.connections_per_address)
        self._listen(context, settings, own_secret)
        self.connection_guard.start()
        self._cleanup.callback(self.connection_guard.stop)
        self.endpoint = Endpoint(
            settings.metrics_address, settings.metrics_port, self.metrics.registry, self.health
        )
        self._cleanup.callback(self.endpoint.close)
        of_before = self._doors.metrics_of_before(self.metrics.registry, self.health)
        if of_before is not None:
            self._cleanup.callback(of_before.close)

    def _listen(self, context: Context, settings: GatewaySettings, own_secret: str) -> None:
        self._doors = doors = _Doors(settings, self._note)
        router = context.socket(zmq.ROUTER)
        secure_server(router, settings.secret_key)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        for what, most in ((zmq.RCVHWM, _WAITING), (zmq.SNDHWM, _UNREAD), (zmq.BACKLOG, _BACKLOG)):
            router.setsockopt(what, most)
        self.connection_guard.watch(router, "requests")
        publisher = context.socket(zmq.XPUB)  # as PUB, but it tells who subscribes to what
        secure_server(publisher, settings.secret_key)
        for what, most in (
            (zmq.XPUB_VERBOSER, 1),
            (zmq.RCVHWM, _WAITING),
            (zmq.BACKLOG, _BACKLOG),
            (zmq.MAXMSGSIZE, _MAX_SUBSCRIPTION_BYTES),
        ):
            publisher.setsockopt(what, most)
        self.connection_guard.watch(publisher, "events")
        self.requests = doors.open(router, "requests")
        self.publications = doors.open(publisher, "events")
        legacy = self._legacy_door(context, settings, doors) if settings.legacy_port else None
        doors.close_others()
        control_service = ControlService(
            self.control,
            self.order_manager,
            self.terminal,
            self.stream,
            self.phases,
            settings.queue_limit,
            self._note,
        )
        self._control_service = control_service
        self.server = Server(
            self.requests,
            self.publications,
            control_service,
            self.terminal,
            self._outbox,
            self.stream,
            self.metrics,
            self.clients.access,
            self.connection_guard,
            Quota(settings.client_requests_per_s),
            self.clients.bar,
            subscriptions=settings.client_subscriptions,
            heartbeat_interval_s=settings.heartbeat_interval_s,
            legacy=legacy,
            every_second=self._every_second,
            note=self._note,
            note_bounded=self._note_bounded,
        )
        interval = min(_SELFTEST_INTERVAL_S, notify.watchdog_interval_s() or _SELFTEST_INTERVAL_S)
        self.selftest = SelfTest(
            context,
            settings.bind,
            self.requests.port,
            public_of(settings.secret_key),
            own_secret,
            interval,
            self._selftest_passed,
        )

    def _legacy_door(self, context: Context, settings: GatewaySettings, doors: _Doors) -> LegacyAdapter:
        router = context.socket(zmq.ROUTER)
        plain_server(router)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        requests = doors.open(router, "legacy-requests")
        publications = None
        if settings.legacy_pub_port:
            publisher = plain_publisher(context)
            publications = doors.open(publisher, "legacy-events")
        return LegacyAdapter(
            requests, publications, self.control, self.order_manager.unresolved, self.metrics, self._note
        )

    # --- running -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`. Ready is told to systemd once a request to ourselves has been answered.

        Raises PartDiedError.
        """
        self.terminal.start()
        self.selftest.start()
        self.server.run()
        death = self._death()
        if death:
            raise PartDiedError(death)

    def stop(self) -> None:
        """End `run` after the job at hand. Safe from a signal handler."""
        self.server.stop()

    def reload(self) -> None:
        """Read the clients file again. From any thread."""
        self.clients.reload_if_changed(force=True)

    def health(self) -> dict[str, object]:
        """What `/health` says: does the network answer, are handshakes judged, is the terminal usable?"""
        death = self._death()
        trouble = death or self.selftest.trouble()
        state, reason = ("not_ready", trouble) if trouble else self._control_service.state()
        if not (self._told or death or state == "terminal_hung"):
            state = "starting"
        return {
            "healthy": state == "ready" and self.authenticator.alive() and self.terminal.alive(),
            "state": state,
            "reason": reason,
            "terminal": self.terminal.state(),
            "terminal_reason": self.terminal.view().reason,
            "stream": self.stream.name,
            "halts": len(self.control.halts()),
            "access": self.clients.access().serial,
            "unresolved": sum(self.order_manager.unresolved_by_magic().values()),
        }

    _told = False

    def _selftest_passed(self) -> None:
        """Runs on the self-test's thread: a request to ourselves has just been answered."""
        if not self.authenticator.alive() or not self.terminal.alive():
            return
        if not self._told:
            if not self.terminal.wait_until_loaded(_SELFTEST_INTERVAL_S):
                return
            self._told = True
            notify.ready("serving")
            self._log.info(
                "ready",
                port=self.requests.port,
                pub_port=self.publications.port,
                stream=self.stream.name,
            )
        notify.watchdog()

    def _every_second(self) -> None:
        self.clients.reload_if_changed()
        state = self._control_service.state()[0]
        self.phases.terminal(usable=state == "ready")
        self.phases.tick()
        self._control_service.announce_halts()
        metrics = self.metrics
        metrics.show_phases(self.phases.figures())
        metrics.terminal.set(float(self.terminal.view().connected and state != "terminal_hung"))
        metrics.ready.set(float(state == "ready"))
        metrics.show_terminal(self.terminal.state())
        metrics.show_account(self._account_figures() if state == "ready" else None)
        metrics.quotes_missing.set(len(self.terminal.quotes_missing()))
        metrics.queue.set(self.terminal.queue_length())
        skew = self._watch.skew.ms()
        metrics.broker_clock.set(math.nan if skew is None else skew / 1000)
        metrics.halts.set(len(self.control.halts()))
        metrics.authenticator.set(float(self.authenticator.alive()))
        guards = self.order_manager.guards()
        limited = {guard.magic for guard in guards}
        metrics.unowned.set(sum(magic not in limited for magic in self._watch.magics()))
        # A magic number whose limits were taken away may still have an order under way.
        metrics.unresolved.replace({**dict.fromkeys(limited, 0), **self.order_manager.unresolved_by_magic()})
        metrics.breaker.replace({guard.magic: float(guard.breaker_open) for guard in guards})
        metrics.show_unfilled(self._unfilled.figures(limited))
        for magic in (0, *limited):
            metrics.expect_orders(magic)
        metrics.expect_clients([peer.name for peer in self.clients.access().by_key.values()])
        self._note_bounded.flush()
        if self._death():
            self.stop()

    def _account_figures(self) -> AccountFigures | None:
        known = self.order_manager.account()
        if known is None:
            return None
        books, daily, limits = known
        return AccountFigures(
            balance=books.account.balance,
            equity=books.account.equity,
            margin_free=books.account.margin_free,
            drawdowns=self._best.drawdowns(books.time_msc, daily),
            limits_used=limits_used(books, daily, limits),
        )

    def _count_deal(self, magic: int) -> None:
        if magic in self.clients.access().limits:
            self.metrics.deals.inc(magic)

    def _death(self) -> str:
        """Which thread has ended by itself, and why; empty while none has. Only a restart cures it."""
        return (
            self.terminal.death()
            or self.authenticator.death()
            or self.connection_guard.death()
            or self.selftest.death()
        )

    def close(self) -> None:
        """Answer what has arrived, and let go of everything."""
        notify.stopping()
        if not self.terminal.death():
            self.server.drain(_DRAIN_TIMEOUT_S)
        self.selftest.stop()
        stopped = self.terminal.stop(_STOP_TIMEOUT_S)
        self.server.finish()
        if not stopped:
            # its thread may still use journal and broker: leave them, the process ends now
            self._log.error("stop.terminal_hangs", seconds=_STOP_TIMEOUT_S)
            return
        self._outbox.close()
        self._cleanup.close()

    def _note(self, event: str, **fields: object) -> None:
        self.metrics.count_event(event)
        level = self._log.warning if event in _WARNINGS else self._log.info
        level(event, **fields)

    def _terminal_lost(self, cause: Cause, reason: str, said: str) -> None:
        self.metrics.terminal_lost.inc(cause)
        self._note("terminal.lost", cause=cause, reason=reason, said=said)

    def _connection_refused(self, address: str, reason: str) -> None:
        if reason == BARRED:
            return  # why is told already
        self.metrics.refused.inc("address" if reason.startswith(WRONG_ADDRESS) else "connection")
        self._note_bounded((address, reason), "connection.refused", address=address, reason=reason)

    def _connection_cut(self, address: str, port: int, reason: str) -> None:
        self._note_bounded((address, reason), "connection.cut", address=address, port=port, reason=reason)


_WARNINGS = frozenset(
    {
        "refused",
        "connection.refused",
        "connection.cut",
        "log.bounded",
        "order.unresolved",
        "order.no_reply",
        "order.slipped",
        "order.too_late",
        "account.shared",
        "quote.missing",
        "journal.lost",
        "order.late_fill",
        "control.lost",
        "books.behind",
        "books.accepted",
        "slippage.unknown",
        "order.declared",
        "evidence.unavailable",
        "journal.failed",
        "internal_error",
        "terminal.not_started",
        "terminal.died",
        "former_port.not_served",
        "terminal.lost",
        "terminal.unanswered",
        "clients.unusable",
        "halt",
        "resume",
        "legacy.refused",
        "phase.refused",
        "phase.demoted",
        "phase.lapsed",
        "phase.forged",
        "phase.unchecked",
        "phase.trading",
        "phase.unrecorded",
    }
)
