"""The strategy process: loads the user's class and calls it only while state and lease permit trading."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mt5crs.client.connecting import connection_of
from mt5crs.client.errors import GatewayError
from mt5crs.client.gateway import GatewayClient
from mt5crs.service import notify
from mt5crs.service.endpoint import Endpoint
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.api import OrderError, Trading
from mt5crs.strategy.confinement import confine
from mt5crs.strategy.connecting import state_feed_of
from mt5crs.strategy.execution import ExecutionAdapter
from mt5crs.strategy.journal import IntentJournal
from mt5crs.strategy.lease import LeaseKeeper
from mt5crs.strategy.loading import make_strategy
from mt5crs.strategy.recording import Recorder
from mt5crs.strategy.statefeed import NOT_KNOWN
from mt5crs.strategy.stopped import limit_gauge
from mt5crs.strategy.trading import LiveTrading
from mt5crs.strategy.usage import Usage
from mt5crs.strategy.watch import Watch, stop_if_killed

_POLL_S = 0.5
_RETRY_S = 0.5


class Runner:
    """Runs one strategy until told to stop. `run` raises what the strategy raises, OrderErrors excepted."""

    def __init__(self, settings: StrategySettings, log: Log) -> None:
        """Raises SettingsError or OSError that say what to correct."""
        self._settings = settings
        self._log = log
        stop_if_killed(Path(settings.state_dir))
        registry = Registry()
        confine(settings, log, registry)
        limit_gauge(registry)
        self._callbacks = registry.histogram(
            "mt5crs_strategy_callback_seconds", "Time of the strategy's callbacks.", ("callback",)
        )
        usage = Usage(settings.memory_percent, settings.threads)
        self._watch = Watch(log, usage, settings.callback_limit_s)
        self._watch.begin()
        with self._watch.calling("the constructor", limited=False):
            self._strategy = make_strategy(settings)
        self._journal = IntentJournal(Path(settings.state_dir))
        self._synced = registry.gauge("mt5crs_strategy_synced", "1 while bound to a ready reconciler.")
        self._may = registry.gauge(
            "mt5crs_strategy_trading", "1 while it may trade: state known, lease held, no order unsettled."
        )
        self._leased = registry.gauge("mt5crs_strategy_lease_epoch", "Epoch of the lease held; 0 for none.")
        self._open = registry.gauge("mt5crs_strategy_unsettled_orders", "Orders whose fate is not known.")
        self._orders = registry.counter("mt5crs_strategy_orders_total", "Orders by outcome.", ("outcome",))
        self._seconds = registry.histogram("mt5crs_strategy_order_seconds", "Time of an order call.")
        self._errors = registry.counter("mt5crs_strategy_errors_total", "Order errors the strategy let pass.")
        self._synced.set(0)
        self._may.set(0)
        self._leased.set(0)
        self._open.set(0)
        peer, patience = connection_of(settings)
        self._client = GatewayClient(peer, patience)
        self._lease = LeaseKeeper(
            GatewayClient(peer, patience),
            log,
            magic=settings.magic_number,
            instance=self._journal.instance(),
            ttl_s=settings.lease_ttl_s,
            margin_s=settings.lease_margin_s,
        )
        self._adapter = ExecutionAdapter(
            self._client,
            self._journal,
            self._lease,
            log,
            magic=settings.magic_number,
            timeout_s=settings.order_timeout_s,
            on_result=self._count,
        )
        self._feed = state_feed_of(settings)
        self._shown = NOT_KNOWN
        self._trading = Recorder(
            LiveTrading(settings, self._client, self._adapter, self._feed),
            log,
            wanted_by=Path(settings.shadow_dir),
            state_dir=Path(settings.state_dir),
        )
        self._suspended: str | None = "starting"
        self._started = False
        self._stopping = False
        self._retry_lease_at = 0.0
        self._caught_up: int | None = None
        self.endpoint = Endpoint(settings.metrics_address, settings.metrics_port, registry, self.health)

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""
        self._stopping = True

    def close(self) -> None:
        """Give the lease back and let go of everything."""
        self._trading.end()
        self._lease.release()
        self._client.close()
        self._feed.close()
        self.endpoint.close()
        self._journal.close()

    def run(self) -> None:
        """Call the strategy's timer while trading is permitted."""
        notify.ready("waiting for the reconciler")
        watchdog_s = notify.watchdog_interval_s()
        fed_at = due_at = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            self._lease.feed()
            self._trading.look()
            if watchdog_s is not None and now - fed_at >= watchdog_s:
                notify.watchdog()
                fed_at = now
            if now < due_at:
                self._feed.update(min(_POLL_S, due_at - now))
                self._shown = self._feed.shown()
                continue
            self._feed.update(0.0 if self._suspended is None else _POLL_S)
            self._shown = self._feed.shown()
            due_at = max(due_at + self._settings.tick_interval_s, time.monotonic())
            if self._may_trade():
                self._call_strategy()
        if self._started:
            with self._watch.calling("on_stop"):
                self._strategy.on_stop()

    def health(self) -> dict[str, object]:
        """What `/health` says."""
        return {
            "healthy": self._suspended is None,
            "state": "starting" if not self._started else "ready" if self._suspended is None else "suspended",
            "reason": self._suspended or "",
            "strategy": self._settings.strategy,
            "magic": self._settings.magic_number,
            "login": self._settings.expected_account_login,
            "epoch": self._lease.epoch,
            **self._shown,
        }

    def _may_trade(self) -> bool:
        """State known, lease held, nothing unsettled; says so when that changes."""
        reason = self._feed.unfit()
        self._synced.set(1 if reason is None else 0)
        if reason is None:
            reason = self._ensure_lease()
        self._may.set(1 if reason is None else 0)
        self._leased.set(self._lease.epoch or 0)
        if reason != self._suspended:
            if reason is None:
                self._log.info("trading", epoch=self._lease.epoch)
            else:
                self._log.warning("suspended", reason=reason)
            notify.status(reason or "trading")
            resumed, self._suspended = self._suspended, reason
            if reason is None:
                first, self._started = not self._started, True
                self._guarded(self._strategy.on_start if first else self._strategy.on_resume, str(resumed))
        return reason is None

    def _ensure_lease(self) -> str | None:
        """Lease under a fresh epoch, every earlier order settled and its effect waited for; else why not."""
        unsettled = self._journal.unsettled()
        self._open.set(len(unsettled))
        if self._lease.epoch is not None and not unsettled and self._lease.epoch == self._caught_up:
            return None
        now = time.monotonic()
        if now < self._retry_lease_at:
            return self._suspended or "waiting for the lease"
        self._retry_lease_at = now + _RETRY_S
        if not self._lease.acquire(fresh_epoch=True):
            return self._lease.reason
        unsettled = self._adapter.resolve_open()
        self._open.set(len(unsettled))
        if unsettled:
            return f"the fate of order {', '.join(unsettled)} is not known yet"
        try:
            not_shown = self._adapter.catch_up()
        except GatewayError as error:
            return f"how far the broker's state has come is not known yet: {error}"
        if not_shown:
            return f"the broker's books do not show order {', '.join(not_shown)} yet"
        self._caught_up = self._lease.epoch
        return None

    def _call_strategy(self) -> None:
        self._guarded(self._strategy.on_timer, "timer")

    def _guarded(self, call: Callable[[Trading], None], occasion: str) -> None:
        name = call.__name__
        began = time.monotonic()
        try:
            with self._watch.calling(name), self._trading.calling(name):
                call(self._trading)
        except OrderError as error:
            self._errors.inc()
            self._log.warning("strategy.order_error", occasion=occasion, error=str(error))
        finally:
            self._callbacks.observe(time.monotonic() - began, name)

    def _count(self, result: str, seconds: float) -> None:
        self._orders.inc(result)
        self._seconds.observe(seconds)
