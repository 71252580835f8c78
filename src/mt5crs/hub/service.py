"""The Hub's life: a listener for each gateway, a watch on the alerts, the page; pruning in between."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import zmq

from mt5crs.client.connection import Peer
from mt5crs.hub import levels, views
from mt5crs.hub.access_log import AccessLog
from mt5crs.hub.alerts import Fired
from mt5crs.hub.figures import Figures
from mt5crs.hub.halt_policy import LONGEST_REASON, Trader, Wanted, halts
from mt5crs.hub.halting import Halting
from mt5crs.hub.listener import Listener, Pace
from mt5crs.hub.pages import Pages, message
from mt5crs.hub.picture import account_of
from mt5crs.hub.posts import Acknowledged, HaltAsked, LettersAsked, NotThereError, Posts
from mt5crs.hub.store import Bounds, Store
from mt5crs.hub.told import Told
from mt5crs.hub.watch import Watch
from mt5crs.hub.webhook import Webhook
from mt5crs.protocol import curve
from mt5crs.service import notify
from mt5crs.service.bounded import BoundedNotes
from mt5crs.service.database import UnusableError
from mt5crs.service.endpoint import Endpoint, Health
from mt5crs.service.logs import Log
from mt5crs.service.tls import Tls, TlsError, own_certificate
from mt5crs.service.tls import ends as tls_ends
from mt5crs.settings.hub import HubSettings

_TICK_S = 0.2
_PRUNE_S = 600.0
_TOLD_EVERY_S = 0.5
"""A gateway's changes are told together: at most so often."""
_MONEY_EVERY_S = 1.0
_COMMENT_S = 15.0
"""So that a reader that has gone is noticed."""
_GAPS_SHOWN = 10
_HALTS_SHOWN = 50
_MB = 1024 * 1024


class Hub:
    """Everything. `run` returns after `stop()`."""

    def __init__(self, settings: HubSettings, log: Log) -> None:
        """Opens state and end point; raises UnusableError or OSError that say what to correct."""
        self._settings, self._log = settings, log
        self._began = time.time()
        self._stopping = threading.Event()
        self._figures = Figures()
        self._note = BoundedNotes(log.warning)
        self._store = Store(
            Path(settings.state_dir),
            Bounds(
                trades_days=settings.keep_trades_days,
                samples_days=settings.keep_samples_days,
                events_days=settings.keep_events_days,
                events=settings.keep_events,
                database_bytes=settings.database_mb * _MB,
                file_bytes=settings.events_file_mb * _MB,
            ),
        )
        self._not_kept = ""
        self._changed: set[str] = set()
        self._heard: set[str] = set()
        self._traders = _traders(settings)
        self._context: curve.Context = zmq.Context()
        pace = Pace(
            recheck_s=settings.recheck_interval_s,
            status_s=settings.status_interval_s,
            silence_s=settings.silence_timeout_s,
            sample_s=settings.sample_interval_s,
            first_history_days=settings.first_history_days,
        )
        self._listeners = {
            name: Listener(
                name,
                _peer(settings, name),
                pace,
                self._store,
                self._figures,
                log,
                context=self._context,
                told=self._told,
            )
            for name in sorted(settings.gateways)
        }
        self._hosts_of: dict[str, Trader] = {
            host: (settings.magic_gateways[host], magic) for host, magic in settings.magic_numbers.items()
        }
        self._deployments = Told(
            Path(settings.deployments_file), "deployments", "none was recorded since the page shows them"
        )
        self._incidents = Told(
            Path(settings.incidents_file), "incidents", "none was opened since this Hub was set up"
        )
        self._deployments_told: Mapping[str, Any] = {}
        self._halting = Halting(
            _halters(settings),
            self._store,
            self._figures,
            log,
            context=self._context,
            halted=self._is_halted,
            told=self._halts_told,
        )
        self._webhook = Webhook(
            settings.webhook_url,
            settings.webhook_secret,
            settings.webhook_tries,
            self._store,
            self._figures,
            log,
            told=self._letters_told,
        )
        self._watch = Watch(
            settings.prometheus_url,
            settings.alertmanager_url,
            settings.alerts_interval_s,
            settings.keep_events_days * 86_400.0,
            self._store,
            self._figures,
            log,
            self._alerts_told,
            self._alerts_fired,
        )
        self._access = AccessLog(
            Path(settings.state_dir),
            settings.access_log_mb * _MB,
            lambda reason: self._note("access", "access.not_kept", reason=reason),
        )
        self._plain = [ipaddress.ip_network(each) for each in settings.plain_readers]
        if self._plain:
            log.warning(
                "plain.readers",
                readers=settings.plain_readers,
                reason="they are answered without TLS, and whoever is on the way reads along; have them ask "
                "by https:// and take them out of PLAIN_READERS (hub_plain_readers)",
            )
        self.endpoint = Endpoint(
            settings.http_address,
            settings.http_port,
            self._figures.registry,
            self.health,
            site=Posts(
                Pages(self, lambda reason: self._note("page", "page.failed", reason=reason)),
                settings.alerts_token,
                self._watch.look_now,
                self._posted,
                self,
                settings.operators,
                settings.alerts_from,
            ),
            posts=True,
            tls=self._tls(),
            plain_for=lambda address: any(ipaddress.ip_address(address) in each for each in self._plain),
            accessed=self._access,
            settings=("HTTP_ADDRESS", "HTTP_PORT"),
        )
        self._show_figures()

    def take(self, settings: HubSettings) -> None:
        """Show by these settings, of which only live ones differ. From any thread."""
        self._traders = _traders(settings)

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of everything."""
        self.endpoint.close()
        self._access.close()
        listeners = list(self._listeners.values())
        self._watch.stop()
        self._webhook.stop()
        for listener in listeners:
            listener.stop()
        self._watch.join(10.0)
        self._webhook.join(10.0)
        for listener in listeners:
            listener.join(10.0)
        ended = self._halting.close()
        if ended and not any(listener.alive for listener in listeners):  # or one still uses its sockets
            self._context.destroy(0)
        self._store.close()

    def run(self) -> None:
        """Listen, tell, prune."""
        for listener in self._listeners.values():
            listener.start()
        self._watch.start()
        self._webhook.start()
        notify.ready(f"listening to {len(self._listeners)} gateways")
        next_prune = next_comment = next_told = next_heard = 0.0
        fed = 0.0
        interval = notify.watchdog_interval_s()
        while not self._stopping.wait(_TICK_S):
            now = time.monotonic()
            if now >= next_told and self._changed:
                self._tell(_taken(self._changed), self._gateway, "gateway")
                next_told = now + _TOLD_EVERY_S
            if now >= next_heard and self._heard:
                self._tell(_taken(self._heard), self._money, "money")
                next_heard = now + _MONEY_EVERY_S
            if now >= next_comment:
                self.endpoint.publish(b": still here\n\n")
                next_comment = now + _COMMENT_S
            if now >= next_prune:
                next_prune = now + (_TICK_S if self._prune() else _PRUNE_S)
            if interval is not None and now - fed >= interval and not self._dead():
                notify.watchdog()
                fed = now

    # ---- what it is like ----

    def health(self) -> Health:
        """Healthy while it can keep and show; that a gateway is not heard is no fault of the Hub."""
        heard = {name: each.known().state for name, each in self._listeners.items()}
        dead = self._dead()
        kept = [name for name, state in heard.items() if state == "not_kept"]
        reason = ""
        if dead:
            reason = f"the thread {dead} has ended; see the journal"
        elif self._not_kept or kept:
            reason = self._not_kept or self._listeners[kept[0]].known().reason
        return {
            "healthy": not reason,
            "state": "unknown" if reason else "ready",
            "reason": reason,
            "gateways": heard,
            "alerts_known": not self._watch.seen.reason,
        }

    def _dead(self) -> str:
        """A thread that has ended by itself; empty if none has."""
        if self._stopping.is_set() or not self._watch.started:
            return ""
        if not self._watch.alive:
            return "watch"
        if self._webhook.dead:
            return "webhook"
        return next((name for name, each in self._listeners.items() if not each.alive), "")

    def _show_figures(self) -> None:
        for name, listener in self._listeners.items():
            self._figures.expect(name)
            self._figures.listening.from_callable(partial(_listening, listener), name)
            self._figures.age.from_callable(partial(_age, listener), name)
        self._figures.database.from_callable(self._size)
        self._figures.due.from_callable(lambda: float(self._halting.due))
        self._figures.webhook_dead.from_callable(lambda: float(self._webhook.figures()[0]))
        self._figures.webhook_waiting.from_callable(lambda: self._webhook.figures()[1])
        self._figures.readers.from_callable(lambda: float(self.endpoint.readers))

    def _size(self) -> float:
        try:
            return float(self._store.size_bytes())
        except UnusableError:
            return float("nan")

    def _prune(self) -> bool:
        """Whether there is more to prune."""
        try:
            gone = self._store.prune()
        except UnusableError as error:
            self._not_kept = str(error)
            self._note("prune", "prune.failed", reason=str(error))
            return False
        self._not_kept = ""
        return gone > 0

    # ---- halts ----

    def _alerts_fired(self, fired: list[Fired]) -> None:
        """Halt what the policy says; where orders never reach the broker there is nothing to halt."""
        wanted = halts(
            fired,
            self._settings.halt_on,
            set(self._hosts_of.values()),
            self._hosts_of,
            {trader for trader in self._hosts_of.values() if self._only_checks(*trader)},
        )
        self._halting.want(wanted)
        self._halting.forget(each.id for each in wanted)

    def _only_checks(self, gateway: str, magic: int) -> bool:
        """Whether the magic number is known to be in phase shadow."""
        phase = self._listeners[gateway].known().phases.get(magic)
        return phase is not None and phase.enforced and phase.phase == 0

    def _is_halted(self, gateway: str, magic: int) -> bool:
        known = self._listeners[gateway].known()
        if known.state != "listening" or known.picture is None:
            return False
        return any(each.magic in (0, magic) for each in known.picture.halts)

    def halt(self, who: str, asked: HaltAsked) -> Mapping[str, Any]:
        """What an operator asks for on the page. Raises NotThereError."""
        there = {magic for gateway, magic in self._hosts_of.values() if gateway == asked.gateway}
        magics = there if asked.magic is None else there & {int(asked.magic)}
        if not magics:
            what = f"{asked.gateway} {asked.magic or ''}".strip()
            raise NotThereError(f"nothing is traded as {what}; /api/fleet lists gateways and magic numbers")
        reason = f"{who}, on the page: {asked.reason}"
        wanted = [
            Wanted(
                id=f"page-{uuid.uuid4().hex}@{magic}",
                gateway=asked.gateway,
                magic=magic,
                by=who,
                reason=reason[:LONGEST_REASON],
            )
            for magic in sorted(magics)
        ]
        self._halting.want(wanted)
        return {"asked": [each.id for each in wanted], "see": "/api/halts"}

    def acknowledge(self, who: str, asked: Acknowledged) -> Mapping[str, Any]:
        """Keep who looks after an alert. Raises NotThereError, UnusableError."""
        alert = self._watch.seen.alerts.get(asked.id)
        if alert is None or alert["state"] == "resolved":
            raise NotThereError("no such alert fires now; /api/alerts/state lists those that do")
        self._store.acknowledge(
            asked.id,
            int(alert["count"]),
            time.time(),
            who,
            asked.reason,
            began=alert["since"],
            false_alarm=asked.false_alarm,
        )
        self._log.warning("alert.acknowledged", alert=asked.id, by=who, reason=asked.reason)
        self._alerts_told()
        return {"id": asked.id, "by": who}

    def forward(self, body: bytes) -> None:
        """Have a notification of Alertmanager delivered. Raises NotThereError, NoNotificationError."""
        if not self._webhook.on:
            raise NotThereError("there is no receiver of signed notifications (hub_webhook_url)")
        self._webhook.take(body)

    def letters(self, asked: LettersAsked) -> Mapping[str, Any]:
        """Try notifications again that were given up, or forget them."""
        act = self._webhook.retry if asked.act == "retry" else self._webhook.forget
        done = act(asked.ids)
        self._log.warning("webhook.letters", act=asked.act, done=done)
        return {"done": done}

    def _tls(self) -> Tls | None:
        """Without a certificate only this host reads, and the PLAIN_READERS."""
        self._figures.certificate_ends.set(math.nan)
        try:
            found = own_certificate(Path(self._settings.state_dir), self._settings.http_address)
            tls = Tls(*found)
            self._figures.certificate_ends.set(tls_ends(found[0]))
        except TlsError as error:
            self._log.error("tls.none", reason=str(error))
            if not self._plain:
                self._figures.certificate_ends.set(0.0)  # as one that has ended: nobody reads the page
            return None
        return tls

    def _posted(self, path: str, status: str, reason: str) -> None:
        self._figures.posts.inc(path, status)
        if reason:
            self._note("post", "post.refused", path=path, reason=reason)

    # ---- what has changed ----

    def _told(self, name: str, deals: list[dict[str, Any]], books: bool) -> None:
        (self._changed if books else self._heard).add(name)
        for deal in deals[-100:]:
            self.endpoint.publish(message("trade", views.shown(deal)))

    def _halts_told(self, name: str) -> None:
        self._told(name, [], True)
        if self.endpoint.readers:
            try:
                self.endpoint.publish(message("halts", self.halts()))
            except UnusableError as error:
                self._note("tell", "page.failed", reason=str(error))

    def _letters_told(self) -> None:
        if self.endpoint.readers:
            self.endpoint.publish(message("letters", self.dead_letters()))

    def _alerts_told(self) -> None:
        if self.endpoint.readers:
            deployments = self.deployments()
            if deployments != self._deployments_told:
                self._deployments_told = deployments
                self.endpoint.publish(message("deployments", deployments))
            self.endpoint.publish(message("alerts", self.alerts()))
            self.endpoint.publish(message("hosts", self._hosts()))

    def _tell(self, names: list[str], view: Callable[[str], dict[str, Any]], event: str) -> None:
        if not self.endpoint.readers:
            return
        for name in names:
            try:
                self.endpoint.publish(message(event, view(name)))
            except UnusableError as error:
                self._note("tell", "page.failed", reason=str(error))

    # ---- content of the pages ----

    def fleet(self) -> Mapping[str, Any]:
        """`/api/fleet`."""
        return {
            "now": time.time(),
            "hub": {"up_s": round(time.time() - self._began, 1), "database_bytes": self._store.size_bytes()},
            "hosts": self._hosts(),
            "gateways": [self._gateway(name) for name in self._listeners],
        }

    def trades(
        self, *, since_msc: int, after: int, limit: int, newest: bool, gateway: str | None, magic: str | None
    ) -> Mapping[str, Any]:
        """`/api/trades`: with `next` as the next `after`, and whether there is more."""
        found = self._store.trades(
            since_msc=since_msc,
            after=after,
            limit=limit if newest else limit + 1,
            newest=newest,
            gateway=gateway,
            magic=magic,
        )
        shown = found[:limit]
        return {
            "trades": [views.shown(each) for each in shown],
            "next": shown[-1]["id"] if shown else after,
            "more": len(found) > limit,
        }

    def curve(self, gateway: str, since: float, points: int) -> Mapping[str, Any] | None:
        """`/api/equity`: of the account that the gateway has now."""
        if gateway not in self._listeners:
            return None
        picture = self._listeners[gateway].known().picture
        gaps = self._store.gaps(gateway, 100, since)
        if picture is None:
            return {"gateway": gateway, "known": False, "points": [], "gaps": gaps}
        found = self._store.curve(gateway, account_of(picture.identity), since, points)
        currency = picture.account.currency
        return {
            "gateway": gateway,
            "known": True,
            **views.shown({"currency": currency, "gaps": gaps}),
            "points": [list(each) for each in found],
        }

    def alerts(self) -> Mapping[str, Any]:
        """`/api/alerts/state`."""
        return views.alerts_state(self._watch.seen, time.time(), self._store.acknowledged())

    def deployments(self) -> Mapping[str, Any]:
        """`/api/deployments`: with the last backup, and the last restore that was proven."""
        return {**self._deployments.now(), "backups": views.backups(self._watch.seen)}

    def dead_letters(self) -> Mapping[str, Any]:
        """`/api/alerts/dead-letters`."""
        return views.shown(self._webhook.state())

    def incidents(self) -> Mapping[str, Any]:
        """`/api/incidents`."""
        return self._incidents.now()

    def levels(self, month: str | None) -> Mapping[str, Any]:
        """`/api/levels`: of a month, by default of the last 30 days. Raises ValueError."""
        now = time.time()
        since, until = levels.month(month, now) if month else (now - 30 * 86_400.0, now)
        expected = [(host, "gateway") for host in self._settings.gateways]
        expected += [
            (host, job) for host in self._settings.magic_numbers for job in ("reconciler", "strategy")
        ]
        told = self._deployments.now()
        found = levels.reckoned(
            since=since,
            until=min(until, now),
            expected=expected,
            ups=self._store.ups(since, until),
            looked_s=self._store.looked_s(since, until),
            fired=self._store.fired(since, until),
            deployments=told["deployments"],
            no_deployments=told["reason"],
            most_deployments=levels.KEPT,
        )
        return views.shown({"month": month, "since": since, "until": min(until, now), "levels": found})

    def runbook(self) -> bytes | None:
        """`/runbook`."""
        try:
            return Path(self._settings.runbook_file).read_bytes()
        except OSError as error:
            self._note("runbook", "page.failed", reason=f"{self._settings.runbook_file}: {error.strerror}")
            return None

    def halts(self) -> Mapping[str, Any]:
        """`/api/halts`: the latest first."""
        asked = [views.shown(each) for each in self._store.halts(_HALTS_SHOWN)]
        return {
            "may": bool(self._settings.operators and self._settings.halt_secret_key),
            "acknowledge": bool(self._settings.operators),
            "on": list(self._settings.halt_on),
            "halts": asked,
        }

    def _hosts(self) -> dict[str, Any]:
        listed = {*self._settings.gateways, *self._settings.magic_numbers}
        return views.hosts(self._watch.seen, listed)

    def _money(self, name: str) -> dict[str, Any]:
        return views.money(name, self._listeners[name].known(), time.time())

    def _gateway(self, name: str) -> dict[str, Any]:
        known = self._listeners[name].known()
        today: tuple[float, int] | None = None
        day = history = None
        if known.picture is not None:
            account = account_of(known.picture.identity)
            day = views.day_start_msc(known.picture.broker_time_msc)
            book = self._store.book(name, account)
            history = book.from_msc if book else None
            if known.state == "listening" and history is not None and history <= day:
                today = self._store.realised(name, account, day)
        heard = self._store.heard(name)
        return views.gateway(
            name,
            known,
            self._traders.get(name, {}),
            now=time.time(),
            today=today,
            today_from_msc=day,
            gaps=self._store.gaps(name, _GAPS_SHOWN),
            first_heard=heard.first if heard else None,
            history_from_msc=history,
        )


def _taken(names: set[str]) -> list[str]:
    """What is in the set, which is empty then; others go on adding to it."""
    taken = sorted(names.copy())
    names.difference_update(taken)
    return taken


def _listening(listener: Listener) -> float:
    return float(listener.known().state == "listening")


def _age(listener: Listener) -> float:
    heard = listener.known().heard_at
    return float("nan") if heard is None else max(0.0, time.time() - heard)


def _peer(settings: HubSettings, name: str) -> Peer:
    return Peer(
        host=settings.gateways[name],
        port=settings.gateway_ports[name],
        pub_port=settings.gateway_pub_ports[name],
        server_key=settings.gateway_public_keys[name],
        client_name=settings.client_name,
        secret_key=settings.client_secret_key,
    )


def _halters(settings: HubSettings) -> dict[str, Peer]:
    """The gateways as the Hub halts there; none without a key for that."""
    if not settings.halt_secret_key:
        return {}
    return {
        name: msgspec.structs.replace(
            _peer(settings, name), client_name=settings.halt_client_name, secret_key=settings.halt_secret_key
        )
        for name in settings.gateways
    }


def _traders(settings: HubSettings) -> dict[str, dict[int, views.Trader]]:
    """Gateway → magic number → who trades it."""
    found: dict[str, dict[int, views.Trader]] = {}
    for host, magic in settings.magic_numbers.items():
        of = found.setdefault(settings.magic_gateways[host], {})
        of[magic] = views.Trader(host, settings.limits.get(host))
    return found
