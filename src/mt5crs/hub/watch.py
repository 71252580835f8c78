"""Asks Prometheus and Alertmanager again and again: alerts, hosts, refusals, latency. A thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mt5crs.hub import alerts, prometheus
from mt5crs.hub.figures import Figures
from mt5crs.hub.prometheus import NoAnswerError
from mt5crs.hub.store import Store
from mt5crs.service.database import UnusableError
from mt5crs.service.logs import Log

_LATENCY = "histogram_quantile(0.95, sum by (host, le) (rate(mt5crs_strategy_order_seconds_bucket[1h])))"
_BACKUPS = {
    "taken": "mt5crs_backup_timestamp_seconds",
    "proven": "mt5crs_restore_proven_timestamp_seconds",
}
_LEAST_S = 0.1
_ORDERS = 'mt5crs_gateway_orders_total{outcome=~"REFUSED|REJECTED|UNRESOLVED"}'


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What Prometheus and Alertmanager said last. Times are Unix time; None is not known.

    `reason` says why nothing is known now; it is empty when they answer. `left_out`: alerts that are too many
    to be kept. `hosts`: job by job, whether it is up. `latency`: P95 of an hour's orders by host, in seconds.
    `refused`: orders by gateway, magic, outcome. `backups`: when the last one was `taken`, and a restore of
    one `proven`; what is not in it, Prometheus has never heard of.
    """

    asked_at: float | None = None
    reason: str = "Prometheus was not asked yet"
    alerts: Mapping[str, Mapping[str, Any]] = {}
    left_out: int = 0
    silences: Mapping[str, bool] | None = None
    hosts: Mapping[str, Mapping[str, bool]] | None = None
    latency: Mapping[str, float] | None = None
    refused: Mapping[tuple[str, str, str], float] | None = None
    backups: Mapping[str, float] | None = None


class Watch:
    """`start`, then `seen` from any thread."""

    def __init__(
        self,
        prometheus_url: str,
        alertmanager_url: str,
        every_s: float,
        keep_s: float,
        store: Store,
        figures: Figures,
        log: Log,
        told: Callable[[], None],
        fired: Callable[[list[alerts.Fired]], None] = lambda _: None,
    ) -> None:
        """`told()` is called after each round, `fired(alerts)` as soon as Prometheus has told which there
        are. keep_s: for how long what is over is kept.

        What is kept of alerts is read from the store.
        """
        self._prometheus, self._alertmanager = prometheus_url, alertmanager_url
        self._every_s, self._keep_s = every_s, keep_s
        self._store, self._figures, self._log, self._told = store, figures, log, told
        self._fired = fired
        self._bell = threading.Event()
        self.seen = Seen(alerts=store.alerts())
        self._left_out = 0
        self._looked_at: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()
        self._bell.set()

    def look_now(self) -> None:
        """Ask at once, not only when it is due; from any thread."""
        self._bell.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def started(self) -> bool:
        """Whether it was started."""
        return self._thread.ident is not None

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            self.once()
            self._told()
            self._stopping.wait(_LEAST_S)  # whoever rings all the time has it asked so often at most
            self._bell.wait(self._every_s)

    def once(self) -> None:
        """One round."""
        now = time.time()
        try:
            if not self._prometheus:
                raise NoAnswerError("no Prometheus is set (hub_prometheus_url)")
            fired = prometheus.alerts(self._prometheus)
            self._fired(fired)
            kept = self._keep_alerts(fired, now)
            hosts = self._hosts()
            self._keep_look(now, hosts)
            refused = self._refused(now)
            self.seen = Seen(
                asked_at=now,
                reason="",
                alerts=kept,
                left_out=self._left_out,
                silences=self._silences(),
                hosts=hosts,
                latency={
                    labels.get("host", ""): value
                    for labels, value in prometheus.query(self._prometheus, _LATENCY)
                },
                refused=refused,
                backups={
                    what: max(value for _, value in found)
                    for what, name in _BACKUPS.items()
                    if (found := prometheus.query(self._prometheus, name))
                },
            )
        except (NoAnswerError, UnusableError) as error:
            if not self.seen.reason:
                self._log.warning("alerts.unknown", reason=str(error))
            # What was known of alerts stays, with its age; hosts and latency of then say nothing of now.
            self.seen = Seen(
                asked_at=self.seen.asked_at,
                reason=str(error),
                alerts=self.seen.alerts,
                left_out=self.seen.left_out,
                refused=self.seen.refused,
            )
        self._figures.alerts_known.set(0.0 if self.seen.reason else 1.0)

    def _keep_alerts(self, fired: list[alerts.Fired], now: float) -> dict[str, Mapping[str, Any]]:
        kept = dict(self.seen.alerts)
        changed, gone, self._left_out = alerts.advance(kept, fired, now, self._keep_s)
        if changed or gone:
            self._store.keep_alerts(changed, gone, now, watched=not self.seen.reason)
            kept.update((each["id"], each) for each in changed)
            for name in gone:
                del kept[name]
        return kept

    def _keep_look(self, now: float, up: Mapping[str, Mapping[str, bool]]) -> None:
        """Count it; a look that a post has asked for stands for less time."""
        since, self._looked_at = self._looked_at, now
        passed = now - since if since is not None else self._every_s
        self._store.keep_look(now, min(max(0.0, passed), 2 * self._every_s), up)

    def _silences(self) -> dict[str, bool] | None:
        if not self._alertmanager:
            return None
        try:
            return prometheus.silenced(self._alertmanager)
        except NoAnswerError as error:
            self._log.warning("silences.unknown", reason=str(error))
            return None

    def _hosts(self) -> dict[str, dict[str, bool]]:
        hosts: dict[str, dict[str, bool]] = {}
        for labels, value in prometheus.query(self._prometheus, "up"):
            hosts.setdefault(labels.get("host", ""), {})[labels.get("job", "")] = value == 1
        return hosts

    def _refused(self, now: float) -> dict[tuple[str, str, str], float]:
        """Count refusals, and keep each rise as an event: no book of the broker has what never reached it."""
        counts = {
            (labels.get("host", ""), labels.get("magic", ""), labels.get("outcome", "")): value
            for labels, value in prometheus.query(self._prometheus, _ORDERS)
        }
        before = self.seen.refused
        risen = []
        for (host, magic, outcome), value in counts.items():
            # A gateway that was restarted counts from 0 again; at the first look nothing is known to be new.
            was = None if before is None else before.get((host, magic, outcome), 0.0)
            by = 0.0 if was is None else value if value < was else value - was
            if by > 0:
                told = {"magic": magic, "outcome": outcome, "by": by}
                risen.append({"at": now, "gateway": host, "kind": "refusals", "refusals": told})
        self._store.keep_events(risen)
        return counts
