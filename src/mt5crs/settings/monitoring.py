"""Settings of Prometheus, Alertmanager and the node exporter (variables `monitoring_…`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import msgspec

from mt5crs.settings.baseline import network_problem, package_problems
from mt5crs.settings.networks import unreadable
from mt5crs.settings.schema import Settings, setting

UNQUOTED = re.compile(r"[!#-&(-\[\]-~]*")
"""What an address is written with in an `.env`, between single quotes."""
_SIGNING = r"whsec_(?:[A-Za-z0-9+/]{4}){8,21}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
SIGNING_SECRETS = rf"^({_SIGNING}( {_SIGNING})?)?\Z"
"""What posts are signed with: a secret, or the new one and the former one; or none."""


class MonitoringSettings(Settings, frozen=True, kw_only=True):
    """What is watched, how often, and where alerts go; no service reads these, they are rendered."""

    part: ClassVar[str] = "monitoring"

    packages: Annotated[
        list[str], setting("Debian packages of monitoring that every host has.", in_env=False)
    ] = msgspec.field(default_factory=lambda: ["prometheus-node-exporter"])
    packages_hub: Annotated[
        list[str], setting("Debian packages of monitoring that only the Hub has.", in_env=False)
    ] = msgspec.field(default_factory=lambda: ["prometheus", "prometheus-alertmanager"])
    node_port: Annotated[int, setting("TCP port of the node exporter.", ge=1, le=65535, in_env=False)] = 9100
    prometheus_port: Annotated[int, setting("TCP port of Prometheus.", ge=1, le=65535, in_env=False)] = 9090
    alertmanager_port: Annotated[int, setting("TCP port of Alertmanager.", ge=1, le=65535, in_env=False)] = (
        9093
    )
    prometheus_sources: Annotated[
        list[str],
        setting(
            "Addresses and networks that reach Prometheus, which asks for no password and speaks no TLS: who "
            "is on the way reads along. None: it answers on the Hub alone (`promtool query instant`).",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    alertmanager_sources: Annotated[
        list[str],
        setting(
            "Addresses that reach Alertmanager. It asks for no password: whoever is there silences alerts. "
            "None: root on the Hub alone does (`amtool`).",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    scrape_interval_s: Annotated[
        int,
        setting(
            "Seconds between two scrapes and between two looks at the alert rules. With 5 a fault is known "
            "within 15 seconds; above 20 the promise of detection within 60 seconds would not hold.",
            ge=1,
            le=20,
            in_env=False,
        ),
    ] = 5
    retention_days: Annotated[
        int, setting("Days that Prometheus keeps its samples.", ge=1, le=3650, in_env=False)
    ] = 30
    retention_size_mb: Annotated[
        int, setting("Most disk space of the samples in MB; the oldest go first.", ge=64, in_env=False)
    ] = 2048
    webhook_url: Annotated[
        str,
        setting(
            "Address that every alert is posted to (Alertmanager's webhook format); empty: alerts are only "
            "shown by Alertmanager.",
            secret=True,
            in_env=False,
        ),
    ] = ""
    watchdog_url: Annotated[
        str,
        setting(
            "Address that a sign of life is posted to every minute (alert Mt5crsWatchdog, Alertmanager's "
            "webhook format): that of a service which tells somebody when it stops. Empty: none is.",
            secret=True,
            in_env=False,
        ),
    ] = ""
    webhook_networks: Annotated[
        list[str],
        setting(
            "Addresses and networks that Alertmanager may talk to besides the fleet: those of webhook and "
            "watchdog, and the name server's when one is given by name. Its sandbox refuses all others.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    hub_watch_url: Annotated[
        str,
        setting(
            "Address that the first two Inf hosts (by name) post to when they hear nothing of the Hub, in "
            "Alertmanager's webhook format: one that does not need the Hub. Empty: they do not watch it.",
            secret=True,
            in_env=False,
        ),
    ] = ""
    hub_watch_secret: Annotated[
        str,
        setting(
            "What these posts are signed with (docs/monitoring.md): whsec_ and 24 to 64 random bytes in "
            "base64, not those of hub_webhook_secret; while it is replaced the new one, a blank, and the "
            "former one. Empty: they are not signed.",
            pattern=SIGNING_SECRETS,
            secret=True,
            in_env=False,
        ),
    ] = ""
    hub_watch_networks: Annotated[
        list[str],
        setting(
            "Addresses and networks that the watchers of the Hub may talk to besides the fleet: that of "
            "monitoring_hub_watch_url, and the name server's when it is given by name. Their sandbox refuses "
            "all others.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    hub_watch_port: Annotated[
        int,
        setting(
            "TCP port on which a watcher of the Hub hears the Hub, which alone reaches it.",
            ge=1,
            le=65535,
            in_env=False,
        ),
    ] = 9105
    hub_watch_silence_s: Annotated[
        int,
        setting(
            "Seconds without a scrape, or a sign of life of Alertmanager, after which a watcher calls "
            "the Hub silent. Below 90 a restart would be silence (its first sign takes 70); above 160 it "
            "would not be told within three minutes.",
            ge=90,
            le=160,
            in_env=False,
        ),
    ] = 120
    hub_watchers: Annotated[
        dict[str, str] | None,
        setting("Hosts that watch the Hub, and their addresses; from the inventory.", in_env=False),
    ] = None
    runbook_url: Annotated[
        str,
        setting(
            "Address of the page where the runbook is read; an alert links to it with '#' and its name in "
            "lower case. Empty: the Hub's page shows that of the deployed release.",
            pattern=r"^(https?://\S+)?\Z",
            in_env=False,
        ),
    ] = ""
    scrape_ports: Annotated[
        dict[str, dict[str, int]] | None,
        setting(
            "TCP port of every host that is scraped, by job and name; on the Hub, from the inventory.",
            in_env=False,
        ),
    ] = None
    steered_clocks: Annotated[
        list[str] | None,
        setting(
            "Hosts whose clock is set by their chrony; on the Hub, from the inventory.",
            in_env=False,
        ),
    ] = None
    instances: Annotated[
        dict[str, str] | None,
        setting(
            "Further instances on machines that have an Inf: host → name; on the Hub, from the inventory.",
            in_env=False,
        ),
    ] = None
    alert_startup_sync_s: Annotated[
        float, setting("A start-up sync that took longer, in seconds, alerts.", gt=0, in_env=False, live=True)
    ] = 3.0
    alert_retry_answer_s: Annotated[
        float,
        setting(
            "An answer to a retried sync that took longer, in seconds, alerts.", gt=0, in_env=False, live=True
        ),
    ] = 9.0
    alert_reconciler_memory_mb: Annotated[
        int,
        setting(
            "A reconciler that holds more memory, in MB (10^6 bytes), alerts.", gt=0, in_env=False, live=True
        ),
    ] = 50
    alert_reconciler_cpu_percent: Annotated[
        float,
        setting("A reconciler that uses more of one CPU, in percent, alerts.", gt=0, in_env=False, live=True),
    ] = 5.0
    alert_gateway_silence_s: Annotated[
        int,
        setting(
            "A gateway that gave no answer, or sent no events, for this many seconds alerts.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 10
    alert_not_ready_s: Annotated[
        int,
        setting(
            "A terminal, gateway, reconciler or strategy that is up but not ready for this many seconds "
            "alerts; it should be longer than any of them takes to start.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 45
    alert_refused_orders: Annotated[
        int,
        setting(
            "So many orders of a magic number refused in five minutes, and none taken, alert.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 5
    alert_no_fills_orders: Annotated[
        int,
        setting(
            "So many orders of a magic number without a deal alert, once they last.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 5
    alert_no_fills_s: Annotated[
        int,
        setting(
            "How long orders are without a deal, in seconds since the first of them, until that alerts.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 1800
    alert_failing_requests_percent: Annotated[
        float,
        setting(
            "Requests that fail for the gateway's or the terminal's sake, in percent of all, alert.",
            gt=0,
            le=100,
            in_env=False,
            live=True,
        ),
    ] = 20.0
    alert_rejected_orders_percent: Annotated[
        float,
        setting(
            "Orders that the broker rejects, in percent of those of a quarter of an hour, alert.",
            gt=0,
            le=100,
            in_env=False,
            live=True,
        ),
    ] = 20.0
    alert_order_latency_s: Annotated[
        float,
        setting(
            "Orders of which five in a hundred take longer to be answered, in seconds, alert.",
            gt=0,
            in_env=False,
            live=True,
        ),
    ] = 1.0
    alert_drawdown_percent: Annotated[
        float,
        setting(
            "A day's result that falls from its best by more than this, in percent of the balance, alerts.",
            gt=0,
            in_env=False,
            live=True,
        ),
    ] = 5.0
    alert_low_balance: Annotated[
        float,
        setting("A balance of this, in account currency, or less alerts.", ge=0, in_env=False, live=True),
    ] = 0.0
    alert_free_margin_percent: Annotated[
        float,
        setting(
            "Free margin below this, in percent of the equity, alerts.", ge=0, lt=100, in_env=False, live=True
        ),
    ] = 20.0
    alert_limit_used_percent: Annotated[
        float,
        setting(
            "A limit of a magic number that is used to this, in percent, alerts.",
            gt=0,
            in_env=False,
            live=True,
        ),
    ] = 90.0
    alert_backup_age_h: Annotated[
        int,
        setting(
            "A newest backup, or a last proven restore, that is older than this, in hours, alerts.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 26
    alert_refused_requests: Annotated[
        int,
        setting(
            "So many requests of one client refused in five minutes, because it had its share, alert.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 100
    alert_refused_connections: Annotated[
        int,
        setting(
            "So many connections that the gateway refused or ended in five minutes alert.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 1000
    alert_disk_free_percent: Annotated[
        float,
        setting("A disk with less free space, in percent, alerts.", gt=0, lt=100, in_env=False, live=True),
    ] = 10.0
    alert_clock_offset_s: Annotated[
        float,
        setting(
            "A host whose clock differs from the Hub's by more, in seconds, alerts.",
            gt=0,
            in_env=False,
            live=True,
        ),
    ] = 1.0

    alert_review_calls: Annotated[
        int, setting("More calls of external reviewers within an hour alert.", ge=1, in_env=False, live=True)
    ] = 400
    alert_review_files: Annotated[
        int,
        setting(
            "Files that reviews must have looked at within a day before their rates are judged.",
            ge=1,
            in_env=False,
            live=True,
        ),
    ] = 100
    alert_review_hit_rate_percent: Annotated[
        float,
        setting(
            "A lower share of a day's files from the cache, in percent, alerts.",
            ge=0,
            le=100,
            in_env=False,
            live=True,
        ),
    ] = 40.0
    alert_review_savings_percent: Annotated[
        float,
        setting(
            "A lower saving of a day against asking the strong model about each file, in percent, alerts.",
            ge=0,
            le=100,
            in_env=False,
            live=True,
        ),
    ] = 50.0
    alert_review_batch_percent: Annotated[
        float,
        setting(
            "Calls of a day that are filled less, in percent, alert.", ge=0, le=100, in_env=False, live=True
        ),
    ] = 30.0
    alert_review_budget_percent: Annotated[
        float,
        setting(
            "Less left of the day's budget of reviews, in percent, alerts.",
            ge=0,
            le=100,
            in_env=False,
            live=True,
        ),
    ] = 20.0

    def problems(self) -> Iterable[str]:
        """Ports used twice, and a webhook address that is none (the address itself is a secret)."""
        yield from package_problems("monitoring_packages", self.packages)
        yield from package_problems("monitoring_packages_hub", self.packages_hub)
        for name, sources in (
            ("prometheus", self.prometheus_sources),
            ("alertmanager", self.alertmanager_sources),
        ):
            for source in sources:
                if problem := network_problem(source):
                    yield f"monitoring_{name}_sources has {source!r}: {problem}"
        ports = (self.node_port, self.prometheus_port, self.alertmanager_port)
        if len(set(ports)) != len(ports):
            yield (
                "monitoring_node_port, monitoring_prometheus_port and monitoring_alertmanager_port must "
                f"differ; they are {ports[0]}, {ports[1]} and {ports[2]}"
            )
        if self.hub_watch_port == self.node_port:
            yield f"monitoring_hub_watch_port and monitoring_node_port must differ; both are {self.node_port}"
        for name, url, networks, who, having in (
            ("webhook", self.webhook_url, "webhook", "Alertmanager", self.webhook_networks),
            ("watchdog", self.watchdog_url, "webhook", "Alertmanager", self.webhook_networks),
            ("hub_watch", self.hub_watch_url, "hub_watch", "the watchers", self.hub_watch_networks),
        ):
            if not url:
                continue
            if not is_address(url):
                yield f"monitoring_{name}_url is no http:// or https:// address; correct it in the vault"
            if not having:
                yield (
                    f"monitoring_{name}_url is set, but monitoring_{networks}_networks is empty: {who} "
                    f"could not reach it; list the {name}'s network (and the name server's)"
                )
        for name, url in (("hub_watch", self.hub_watch_url), ("runbook", self.runbook_url)):
            if not UNQUOTED.fullmatch(url):
                yield (
                    f"monitoring_{name}_url has a character that no address has (quote, blank, backslash "
                    "or one outside of ASCII); write it as %XX"
                )
        if self.hub_watch_secret and not self.hub_watch_url:
            yield (
                "monitoring_hub_watch_secret is set, but monitoring_hub_watch_url is empty: nothing is "
                "posted that it could sign; set the address, too"
            )
        for name, having in (("webhook", self.webhook_networks), ("hub_watch", self.hub_watch_networks)):
            yield from unreadable(f"monitoring_{name}_networks", having)


def is_address(url: str) -> bool:
    """Whether something can be posted to it."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
