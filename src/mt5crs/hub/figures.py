"""Figures that the Hub publishes of itself."""

from __future__ import annotations

from mt5crs.service.metrics import Registry


class Figures:
    """All metrics of the Hub, in one registry."""

    def __init__(self) -> None:
        self.registry = new = Registry()
        self.listening = new.gauge(
            "mt5crs_hub_listening",
            "1 while the gateway is listened to and its books are known.",
            ("gateway",),
        )
        self.age = new.gauge(
            "mt5crs_hub_event_age_seconds", "Since a gateway was last heard (never: NaN).", ("gateway",)
        )
        self.events = new.counter(
            "mt5crs_hub_events_total", "Events received, heartbeats included.", ("gateway",)
        )
        self.syncs = new.counter(
            "mt5crs_hub_syncs_total", "Readings of a gateway's books, by outcome.", ("gateway", "outcome")
        )
        self.gaps = new.counter(
            "mt5crs_hub_gaps_total", "Times in which a gateway was not listened to.", ("gateway",)
        )
        self.database = new.gauge("mt5crs_hub_database_bytes", "Disk space of what is in the database.")
        self.alerts_known = new.gauge(
            "mt5crs_hub_alerts_known", "1 while Prometheus answers what alerts there are."
        )
        self.halts = new.counter(
            "mt5crs_hub_halts_total",
            "Halts that the Hub was asked for, by alert or by a person, by what became of them.",
            ("outcome",),
        )
        for outcome in ("halted", "already", "impossible"):
            self.halts.inc(outcome, by=0)
        self.due = new.gauge("mt5crs_hub_halts_due", "Halts that no gateway has answered yet.")
        self.posts = new.counter(
            "mt5crs_hub_posts_total", "What was posted to the Hub, by what was answered.", ("path", "status")
        )
        self.webhook_tries = new.counter(
            "mt5crs_hub_webhook_total",
            "Posts to the signed webhook by outcome; dropped: too many could not be delivered.",
            ("outcome",),
        )
        for outcome in ("accepted", "failed", "dropped"):
            self.webhook_tries.inc(outcome, by=0)
        self.webhook_dead = new.gauge(
            "mt5crs_hub_webhook_dead_letters", "Notifications that the signed webhook did not accept."
        )
        self.webhook_waiting = new.gauge(
            "mt5crs_hub_webhook_waiting_seconds",
            "For how long the oldest notification that is still tried has waited (none: 0).",
        )
        self.certificate_ends = new.gauge(
            "mt5crs_hub_certificate_ends_timestamp_seconds",
            "When the certificate of the page ends (not known, or none: NaN).",
        )
        self.readers = new.gauge("mt5crs_hub_stream_readers", "Connections that are told of changes.")

    def expect(self, gateway: str) -> None:
        """Show a gateway's series before anything is counted."""
        for outcome in ("good", "failed"):
            self.syncs.inc(gateway, outcome, by=0)
        self.events.inc(gateway, by=0)
        self.gaps.inc(gateway, by=0)
