"""The reconciler's life: start-up sync or halt, then watch, compare and publish for ever."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from mt5crs.client.connecting import connection_of
from mt5crs.client.errors import GatewayError, RefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.client.published import PublishedState, State, StateUnavailableError, read_state
from mt5crs.client.subscription import Sequence, Subscription
from mt5crs.protocol import addresses
from mt5crs.protocol.events import (
    ACCOUNT_TOPIC,
    CONTROL_TOPIC,
    HEARTBEAT_TOPIC,
    AccountEvent,
    AnyEvent,
    Heartbeat,
    trade_topic,
)
from mt5crs.reconciler.compare import STRIKES_TO_HALT, comparable, compare, count_strikes, struck_out
from mt5crs.reconciler.figures import Figures, make_room
from mt5crs.reconciler.halt import SystemHaltException, advice
from mt5crs.reconciler.legacy import LegacySource
from mt5crs.reconciler.model import Comparison
from mt5crs.reconciler.publisher import Publisher
from mt5crs.reconciler.source import InconsistentSnapshotError, Reading, Source, V1Source
from mt5crs.reconciler.store import Store
from mt5crs.service import notify
from mt5crs.service.endpoint import Endpoint
from mt5crs.service.logs import Log
from mt5crs.settings.reconciler import ReconcilerSettings

_POLL_S = 1.0
"""Longest wait in the loop: bounds the reaction to SIGTERM and the watchdog's pace."""
SHADOW = "shadow"
"""Directory, in that of the state, of the record of a shadow run."""
_SETTLE_S = 0.01
"""Events of one order come in a burst; one sync after it serves them all."""


class Reconciler:
    """One magic number of one account. `run` returns after `stop()`, or raises SystemHaltException."""

    def __init__(self, settings: ReconcilerSettings, log: Log) -> None:
        """Opens state, socket and end point; raises SettingsError or OSError that say what to correct."""
        self._settings = settings
        self._log = log
        self._figures = Figures()
        self._shadow = settings.gateway_protocol == "legacy"
        # What a legacy gateway shows is not proven by deals, so it never touches the live record.
        record = Path(settings.state_dir) / SHADOW if self._shadow else Path(settings.state_dir)
        self._store = Store(record, settings.magic_number)
        make_room(Path(settings.state_dir))
        self._local = comparable(self._store.load(), settings.expected_account_login)
        self._reading: Reading | None = None
        self._strikes: dict[str, int] = {}
        self._synced_at = 0.0
        self._heard = time.monotonic()
        self._unanswered_since: float | None = None
        self._events_heard: float | None = None
        self._figures.silent.from_callable(lambda: _since(self._unanswered_since), "answers")
        self._figures.silent.from_callable(lambda: _since(self._events_heard), "events")
        self._silent = False
        self._skipped_in_a_row = 0
        self._attempts_failed = 0
        self._stopping = False
        self._stop_heard, self._stop_bell = socket.socketpair()
        self._publisher = Publisher(
            settings.reconciler_socket, self._view("starting", "start-up sync has not ended")
        )
        self.endpoint = Endpoint(
            settings.metrics_address, settings.metrics_port, self._figures.registry, self.health
        )
        self._sequence = Sequence([trade_topic(settings.magic_number), ACCOUNT_TOPIC, CONTROL_TOPIC])
        self._subscription: Subscription | None = None
        self._source: Source
        if self._shadow:
            self._source = LegacySource(settings, self._attempt_failed)
        else:
            peer, patience = connection_of(settings)
            client = GatewayClient(peer, patience, on_failure=self._attempt_failed)
            self._source = V1Source(client, settings.magic_number, settings.expected_account_login)
            topics = (HEARTBEAT_TOPIC, ACCOUNT_TOPIC, CONTROL_TOPIC, trade_topic(settings.magic_number))
            self._subscription = Subscription(peer, topics)

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""
        self._stopping = True
        self._stop_bell.send(b"x")

    def close(self) -> None:
        """Let go of everything."""
        self._publisher.close()
        self._source.close()
        if self._subscription is not None:
            self._subscription.close()
        self.endpoint.close()
        self._store.close()

    def run(self) -> None:
        """Sync, tell systemd, watch. Raises SystemHaltException."""
        try:
            self._start_up()
            notify.ready(self._publisher.state.state)
            self._watch()
        except SystemHaltException as halt:
            self._show("halted", str(halt))
            notify.stopping(str(halt).splitlines()[0][:200])
            raise

    # ---- start-up ----

    def _start_up(self) -> None:
        began = time.monotonic()
        self._show("syncing", "start-up sync is under way")
        accepted = self._store.acceptance()
        if accepted is not None:
            self._log.warning("record.accepted", reason=accepted.reason, who=accepted.who)
            self._local = None
        try:
            comparison = self._sync_until_equal()
        except SystemHaltException:
            failures = self._figures.record_startup(
                Path(self._settings.state_dir), self._settings.magic_number, succeeded=False
            )
            self._log.error("startup.failed", in_a_row=failures)
            raise
        if accepted is not None:
            self._store.acceptance_used()
        self._figures.record_startup(
            Path(self._settings.state_dir), self._settings.magic_number, succeeded=True
        )
        seconds = time.monotonic() - began
        self._figures.startup_seconds.set(seconds)
        self._figures.recovered.set(len(comparison.state.positions))
        self._log.info(
            "startup.synced",
            seconds=round(seconds, 4),
            positions=len(comparison.state.positions),
            orders=len(comparison.state.orders),
            digest=comparison.state.digest,
        )

    def _sync_until_equal(self) -> Comparison:
        """Ask until record and broker agree; a difference must outlast three answers to halt."""
        while True:
            try:
                comparison = self._sync(attempts=None)
            except GatewayError as error:
                raise SystemHaltException(f"start-up sync failed: {error}") from error
            if not comparison.discrepancies:
                return comparison
            self._halt_if_struck_out(comparison, unresolved_too=True)
            self._pause(self._settings.sync_retry_interval_s)

    # ---- one sync ----

    def _sync(self, attempts: int | None) -> Comparison:
        """Read, compare, save, publish. Raises GatewayError when there was no believable answer."""
        began = time.monotonic()
        self._attempts_failed = 0
        try:
            reading = self._source.read(self._local, attempts)
        except GatewayError:
            self._figures.syncs.inc("failed")
            raise
        seconds = time.monotonic() - began
        self._answered()
        comparison = compare(self._local, reading.evidence)
        fresh = self._store.save(comparison.state, comparison.events)
        self._local, self._reading = comparison.state, reading
        self._sequence.reset(reading.stream, reading.seqs)
        self._strikes = count_strikes(self._strikes, comparison.discrepancies)
        self._skipped_in_a_row = 0
        self._synced_at = time.time()
        self._count(comparison, seconds)
        for event in fresh:
            self._figures.events.inc(event.kind)
            self._log.info("broker." + event.kind, id=event.id, detail=event.detail)
        for found in comparison.discrepancies:
            self._log.warning(
                "discrepancy", key=found.key, detail=found.detail, strikes=self._strikes[found.key]
            )
        if comparison.discrepancies:
            self._show("unknown", "; ".join(found.detail for found in comparison.discrepancies))
        else:
            self._show(*self._settled())
        return comparison

    def _settled(self) -> tuple[State, str]:
        if self._shadow:
            doubt = f"; {self._reading.doubt}" if self._reading is not None and self._reading.doubt else ""
            return "shadow", f"a legacy gateway proves neither account nor deals: read-only shadow run{doubt}"
        if self._silent:
            # Equal now, but blind from now on: the next change would go unnoticed until the next check.
            port = self._settings.gateway_pub_port
            return "unknown", f"requests work, but no events arrive on port {port}; check the firewalls"
        return "ready", ""

    def _halt_if_struck_out(self, comparison: Comparison, *, unresolved_too: bool) -> None:
        details = {found.key: found.detail for found in comparison.discrepancies}
        lasting = {
            key: details[key]
            for key in struck_out(self._strikes)
            if unresolved_too or not key.startswith("unresolved:")
        }
        if lasting:
            where = f" --state-dir {self._store.directory}" if self._shadow else ""
            names = self._reading.evidence.unresolved if self._reading is not None else ()
            unresolved = [name for name in names if lasting.pop(f"unresolved:{name}", None) is not None]
            raise SystemHaltException(advice(unresolved, list(lasting.values()), where))

    def _count(self, comparison: Comparison, seconds: float) -> None:
        figures = self._figures
        figures.syncs.inc("ok")
        figures.last_sync_seconds.set(seconds)
        if self._attempts_failed:
            figures.retried(seconds)
        figures.mismatches.set(comparison.differing_positions)
        figures.accuracy.set(comparison.accuracy)
        figures.external.set(len(comparison.state.external))
        figures.discrepancies.set(len(comparison.discrepancies))
        unresolved = self._reading.evidence.unresolved if self._reading is not None else ()
        figures.unresolved.set(len(unresolved))

    # ---- watching ----

    def _watch(self) -> None:
        settings = self._settings
        check_at = time.monotonic() + settings.recheck_interval_s
        # Only from here on are events read; a gateway that speaks the legacy protocol has none for us.
        self._events_heard = time.monotonic() if self._subscription is not None else None
        watchdog_s = notify.watchdog_interval_s()
        ping_at = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            if watchdog_s is not None and now >= ping_at:
                self._prove_alive()
                ping_at = now + watchdog_s
            reason = self._listen(min(_POLL_S, max(0.0, check_at - now)))
            self._expire_silence()
            if reason is not None or time.monotonic() >= check_at:
                check_at = time.monotonic() + self._check(reason)

    def _check(self, reason: str | None) -> float:
        """Compare once; returns the seconds until the next comparison is due."""
        if reason is not None:
            self._log.debug("resync", reason=reason)
        try:
            comparison = self._sync(attempts=1)
        except InconsistentSnapshotError as error:
            self._answered()
            self._strikes = {"snapshot": self._strikes.get("snapshot", 0) + 1}
            self._skip(error)
            self._show("unknown", str(error))
            if struck_out(self._strikes):
                raise SystemHaltException(f"three answers in a row cannot be believed: {error}") from error
            return self._settings.sync_retry_interval_s
        except GatewayError as error:
            self._skip(error)
            if isinstance(error, RefusedError) and error.reply.code in ("NOT_READY", "FORBIDDEN"):
                self._show("unknown", str(error))
            if reason is not None:
                # What we hold is known to be out of date, and could not be brought up to date.
                self._show("unknown", f"{reason}; and the resync failed: {error}")
            return self._settings.sync_retry_interval_s
        self._halt_if_struck_out(comparison, unresolved_too=False)
        if comparison.discrepancies:
            return self._settings.sync_retry_interval_s
        return self._settings.recheck_interval_s

    def _skip(self, error: GatewayError) -> None:
        self._figures.skipped.inc()
        self._skipped_in_a_row += 1
        self._log.warning("check.skipped", error=str(error), in_a_row=self._skipped_in_a_row)
        if self._skipped_in_a_row >= STRIKES_TO_HALT:
            self._show("unknown", f"{self._skipped_in_a_row} checks in a row failed: {error}")

    def _listen(self, timeout_s: float) -> str | None:
        """Wait for events; the reason for a sync when they changed something or some were missed."""
        if self._subscription is None:
            self._pause(timeout_s)
            return None
        arrived = self._subscription.receive(timeout_s, self._stop_heard)
        reason: str | None = None
        if arrived and self._silent:
            self._silent = False
            reason = "the gateway is heard again"
        if any(topic == trade_topic(self._settings.magic_number) for topic, _ in arrived):
            time.sleep(_SETTLE_S)
            arrived += self._subscription.receive(0)
        if arrived:
            self._heard = self._events_heard = time.monotonic()
            self._figures.messages.inc(by=len(arrived))
        for topic, event in arrived:
            reason = self._digest_event(topic, event) or reason
        return reason

    def _digest_event(self, topic: str, event: AnyEvent) -> str | None:
        new = not isinstance(event, Heartbeat) and event.seq > self._sequence.seen(topic)
        missed = self._sequence.accept(topic, event)
        if missed is not None:
            self._figures.gaps.inc()
            self._log.warning("events.missed", reason=missed)
            return missed
        if isinstance(event, Heartbeat) and event.state != "ready" and self._publisher.state.state == "ready":
            return f"the gateway reports {event.state}"
        if isinstance(event, AccountEvent):
            identity = event.identity
            sound = identity.login == self._settings.expected_account_login and identity.connected
            return None if sound and identity.trade_allowed else "the account's identity or state changed"
        return f"event {event.seq} of {topic}" if new and topic != CONTROL_TOPIC else None

    def _expire_silence(self) -> None:
        """Within the bound the state counts as known; after it, it does not, whatever TCP believes."""
        silence = time.monotonic() - self._heard
        if self._subscription is None:
            settings = self._settings
            bound = settings.recheck_interval_s + settings.sync_timeout_s + settings.silence_timeout_s
        else:
            bound = self._settings.silence_timeout_s
            silence = max(silence, self._subscription.silent_for_s)
        if silence <= bound:
            return
        where = addresses.with_port(self._settings.gateway_host, self._settings.gateway_pub_port)
        self._silent = True
        self._log.error("gateway.silent", seconds=round(silence, 1), gateway=where)
        self._show(
            "unknown", f"nothing heard from {where} for {silence:.1f} s; check the gateway and the network"
        )
        if self._subscription is not None:
            self._subscription.reopen()

    def _prove_alive(self) -> None:
        """Feed the watchdog only after our own socket has answered."""
        try:
            read_state(self._settings.reconciler_socket, 1.0)
        except StateUnavailableError as error:
            self._log.error("selftest.failed", error=str(error))
        else:
            notify.watchdog()

    # ---- shared ----

    def health(self) -> dict[str, object]:
        """What `/health` says."""
        state = self._publisher.state
        return {
            "healthy": state.state in ("ready", "shadow"),
            "state": state.state,
            "reason": state.reason,
            "login": state.login,
            "magic": state.magic,
            "digest": state.digest,
            "positions": len(state.positions or ()),
            "orders": len(state.orders or ()),
            "external_positions": state.external_positions,
            "unresolved": list(state.unresolved),
            "synced_at": state.synced_at,
            "gateway_silent_s": round(time.monotonic() - self._heard, 3),
            "mismatches": self._figures.mismatches.value() if state.synced_at else None,
        }

    def _attempt_failed(self, attempt: int, error: GatewayError) -> None:
        self._attempts_failed = attempt
        if isinstance(error, RefusedError):
            self._answered()
        else:
            self._figures.connection_errors.inc()
            if self._unanswered_since is None:
                self._unanswered_since = time.monotonic()
        self._log.warning("attempt.failed", attempt=attempt, error=str(error))

    def _answered(self) -> None:
        self._heard = time.monotonic()
        self._unanswered_since = None

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))

    def _show(self, state: State, reason: str) -> None:
        before = self._publisher.state
        self._publisher.publish(self._view(state, reason))
        self._figures.enter(state)
        if (before.state, before.reason) != (state, reason):
            self._log.info("state", state=state, reason=reason)
            notify.status(f"{state}: {reason}"[:200] if reason else state)

    def _view(self, state: State, reason: str) -> PublishedState:
        local, reading = self._local, self._reading
        return PublishedState(
            state=state,
            reason=reason,
            login=local.login if local is not None else self._settings.expected_account_login,
            magic=self._settings.magic_number,
            digest=local.digest if local is not None else "",
            stream=reading.stream if reading is not None else "",
            seq=reading.seqs.get(trade_topic(self._settings.magic_number), 0) if reading is not None else 0,
            broker_time_msc=reading.evidence.time_msc if reading is not None else 0,
            synced_at=self._synced_at,
            external_positions=len(local.external) if local is not None else 0,
            unresolved=reading.evidence.unresolved if reading is not None else (),
            positions=local.positions if local is not None else (),
            orders=local.orders if local is not None else (),
        )


def _since(moment: float | None) -> float:
    """Seconds since a moment of the monotonic clock; 0 for none."""
    return 0.0 if moment is None else time.monotonic() - moment
