"""Figures the gateway publishes."""

import math
import os
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import get_args

from mt5crs.broker.remote import Cause
from mt5crs.protocol.fields import Outcome
from mt5crs.protocol.replies import Error, OrderResult, Reply
from mt5crs.service.metrics import Registry

from .account_figures import AccountFigures
from .terminal import State

_REFUSED = "REFUSED"
FAILURES = ("BUSY", "NOT_READY", "BROKER", "INTERNAL")
"""Refusals that another moment, or a healthy terminal, would have spared the client."""
CUT_REASONS = ("source", "total", "incomplete", "unread", "frames", "subscriptions", "forbidden", "rate")


class GatewayMetrics:
    """All metrics of the gateway, in one registry."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.requests = self.registry.counter(
            "mt5crs_gateway_requests_total", "Requests by kind and outcome.", ("kind", "outcome")
        )
        self.refused = self.registry.counter(
            "mt5crs_gateway_refused_total", "Requests and connections refused, by reason.", ("reason",)
        )
        # No listed key; one that is not accepted from there; what the client is not to blame for.
        for reason in ("connection", "address", *FAILURES):
            self.refused.inc(reason, by=0)
        self.orders = self.registry.counter(
            "mt5crs_gateway_orders_total",
            "Submissions by magic number (0: any without limits) and outcome.",
            ("magic", "outcome"),
        )
        self.clients = self.registry.counter(
            "mt5crs_gateway_client_requests_total", "Requests by client.", ("client",)
        )
        self.clients_refused = self.registry.counter(
            "mt5crs_gateway_client_refused_total",
            "Requests refused because the client asked too often (rate) or too many of it waited (queue).",
            ("client", "reason"),
        )
        self.connections = self.registry.gauge("mt5crs_gateway_connections", "Open connections.")
        self.connections_of_one = self.registry.gauge(
            "mt5crs_gateway_connections_of_one_address",
            "Open connections of the address that has most, or had within 15 seconds.",
        )
        self.most_of_one = self.registry.gauge(
            "mt5crs_gateway_connections_per_address_limit", "Most connections that one address may have."
        )
        self.connections_cut = self.registry.counter(
            "mt5crs_gateway_connections_cut_total",
            "Connections that the gateway ended, by reason (docs/security.md).",
            ("reason",),
        )
        for reason in CUT_REASONS:
            self.connections_cut.inc(reason, by=0)
        self.dropped = self.registry.counter(
            "mt5crs_gateway_replies_dropped_total", "Replies whose client had gone or did not read."
        )
        self.events = self.registry.counter("mt5crs_gateway_events_total", "Events published.")
        self.terminal = self.registry.gauge(
            "mt5crs_gateway_up_to_terminal", "Whether the broker's terminal is connected (1) or not (0)."
        )
        self.terminal_state = self.registry.gauge(
            "mt5crs_gateway_terminal_state", "What the terminal is like: 1 for its state, else 0.", ("state",)
        )
        self.terminal_lost = self.registry.counter(
            "mt5crs_gateway_terminal_lost_total",
            "Terminal processes that were lost: killed at a deadline, ended by themselves, wrote garbage.",
            ("cause",),
        )
        for cause in get_args(Cause):
            self.terminal_lost.inc(cause, by=0)
        self.ready = self.registry.gauge(
            "mt5crs_gateway_ready", "Whether orders can be carried out: connected, trading allowed, not hung."
        )
        self.queue = self.registry.gauge("mt5crs_gateway_queue_length", "Requests waiting for the terminal.")
        self.halts = self.registry.gauge("mt5crs_gateway_halts", "Halts in force.")
        self.unresolved = self.registry.gauge(
            "mt5crs_gateway_unresolved_orders", "Submissions whose fate is not known.", ("magic",)
        )
        self.breaker = self.registry.gauge(
            "mt5crs_gateway_breaker_open", "Whether the circuit breaker is open.", ("magic",)
        )
        self.unowned = self.registry.gauge(
            "mt5crs_gateway_unowned_positions", "Open positions whose magic number has no limits here."
        )
        self.phase = self.registry.gauge(
            "mt5crs_gateway_phase", "Number of the production phase in force (docs/phases.md).", ("magic",)
        )
        self.phase_left = self.registry.gauge(
            "mt5crs_gateway_phase_left_seconds",
            "Until the record of the phase runs out (none: +Inf).",
            ("magic",),
        )
        self.order_seconds = self.registry.histogram(
            "mt5crs_gateway_order_seconds", "From the arrival of an order to the broker's answer to it."
        )
        self.deals = self.registry.counter(
            "mt5crs_gateway_deals_total", "Deals of the magic numbers with limits.", ("magic",)
        )
        self.unfilled = self.registry.gauge(
            "mt5crs_gateway_unfilled_orders",
            "Orders that the broker was asked for since the last deal, or the gateway's start.",
            ("magic",),
        )
        self.unfilled_for = self.registry.gauge(
            "mt5crs_gateway_unfilled_seconds", "Since the first of them was asked for.", ("magic",)
        )
        self.balance = self.registry.gauge(
            "mt5crs_gateway_account_balance", "The account's balance, in its currency (not known: NaN)."
        )
        self.equity = self.registry.gauge(
            "mt5crs_gateway_account_equity", "The account's equity, in its currency (not known: NaN)."
        )
        self.margin_free = self.registry.gauge(
            "mt5crs_gateway_account_margin_free", "Its free margin, in its currency (not known: NaN)."
        )
        self.drawdown = self.registry.gauge(
            "mt5crs_gateway_drawdown",
            "How far the day's result is below its best of the day, in account currency.",
            ("magic",),
        )
        self.limit_used = self.registry.gauge(
            "mt5crs_gateway_limit_used_ratio", "How much of a limit is used.", ("magic", "limit")
        )
        self.disk = self.registry.gauge(
            "mt5crs_gateway_disk_free_ratio", "Free part of the disk that the books and the journal are on."
        )
        # Where no node exporter runs, this is how the Hub sees the clock.
        self.clock = self.registry.gauge("mt5crs_gateway_time_seconds", "The host's clock, in Unix time.")
        self.clock.from_callable(time.time)
        self.broker_clock = self.registry.gauge(
            "mt5crs_gateway_broker_clock_skew_seconds",
            "By how much the broker's time as the gateway reckons it is ahead of new quotes (none: NaN).",
        )
        self.quotes_missing = self.registry.gauge(
            "mt5crs_gateway_quotes_missing", "Symbols of TICK_SYMBOLS that the terminal gives no quote of."
        )
        self.late_fills = self.registry.counter(
            "mt5crs_gateway_late_fills_total",
            "Orders that were executed although a person had declared them not executed.",
        )
        self.foreign_orders = self.registry.counter(
            "mt5crs_gateway_foreign_deals_total",
            "Deals of our magic numbers that look like a gateway's and are not in this one's journal.",
        )
        self._of_events = {"order.late_fill": self.late_fills, "account.shared": self.foreign_orders}
        for counter in self._of_events.values():
            counter.inc(by=0)
        self.broker_clock_limit = self.registry.gauge(
            "mt5crs_gateway_broker_clock_skew_limit_seconds", "Beyond this skew no order is sent."
        )
        self.clients_file_errors = self.registry.counter(
            "mt5crs_gateway_clients_file_errors_total", "Changed clients files that could not be used."
        )
        self.authenticator = self.registry.gauge(
            "mt5crs_gateway_authenticator_up", "Whether handshakes are answered."
        )

    def count_event(self, event: str) -> None:
        """Count what was logged, if it has a figure."""
        counter = self._of_events.get(event)
        if counter is not None:
            counter.inc()

    def show_terminal(self, state: State) -> None:
        """Show what the terminal is like."""
        self.terminal_state.replace({each: float(each == state) for each in get_args(State)})

    def show_phases(self, phases: Mapping[int, tuple[int, float]]) -> None:
        """Show number and time left of every magic number's phase."""
        self.phase.replace({magic: float(number) for magic, (number, _) in phases.items()})
        self.phase_left.replace({magic: left for magic, (_, left) in phases.items()})

    def show_unfilled(self, unfilled: Mapping[int, tuple[int, float]]) -> None:
        """Show how many orders, and for how many seconds, each magic number has had without a deal."""
        self.unfilled.replace({magic: asked for magic, (asked, _) in unfilled.items()})
        self.unfilled_for.replace({magic: since for magic, (_, since) in unfilled.items()})

    def show_account(self, figures: AccountFigures | None) -> None:
        """Show money and limits; None: they are not known now."""
        money = (math.nan,) * 3
        if figures is not None:
            money = (figures.balance, figures.equity, figures.margin_free)
        for gauge, value in zip((self.balance, self.equity, self.margin_free), money, strict=True):
            gauge.set(value)
        self.drawdown.replace(figures.drawdowns if figures is not None else {})
        self.limit_used.replace(figures.limits_used if figures is not None else {})

    def expect_clients(self, names: Collection[str]) -> None:
        """Show every client's series before anything is refused."""
        for name in names:
            self.clients.inc(name, by=0)
            for reason in ("rate", "queue"):
                self.clients_refused.inc(name, reason, by=0)

    def expect_orders(self, magic: int) -> None:
        """Show every outcome before it is counted: how far a new series has risen, Prometheus cannot tell."""
        for outcome in (*get_args(Outcome), _REFUSED):
            self.orders.inc(magic, outcome, by=0)
        self.deals.inc(magic, by=0)

    def count_order(self, magic: int, reply: Reply, limits: Collection[int]) -> None:
        """Count the answer to a submission; who may not trade at all cannot make series of its own."""
        if isinstance(reply, OrderResult):
            self.orders.inc(magic, reply.outcome)
        elif isinstance(reply, Error):
            self.orders.inc(magic if magic in limits else 0, _REFUSED)


def free_ratio(directory: Path) -> float:
    """Free part of the disk that a directory is on, from 0 to 1; NaN when it cannot be told."""
    try:
        if sys.platform == "win32":
            import shutil

            usage = shutil.disk_usage(directory)
            return usage.free / usage.total
        figures = os.statvfs(directory)
        return figures.f_bavail / figures.f_blocks
    except (OSError, ZeroDivisionError):
        return math.nan
