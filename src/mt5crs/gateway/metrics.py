"""Figures the gateway publishes."""

from mt5crs.service.metrics import Registry


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
        self.orders = self.registry.counter(
            "mt5crs_gateway_orders_total", "Submissions by magic number and outcome.", ("magic", "outcome")
        )
        self.dropped = self.registry.counter(
            "mt5crs_gateway_replies_dropped_total", "Replies whose client had gone or did not read."
        )
        self.events = self.registry.counter("mt5crs_gateway_events_total", "Events published.")
        self.terminal = self.registry.gauge(
            "mt5crs_gateway_up_to_terminal", "Whether the broker's terminal is connected (1) or not (0)."
        )
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
        self.clients_file_errors = self.registry.counter(
            "mt5crs_gateway_clients_file_errors_total", "Changed clients files that could not be used."
        )
        self.authenticator = self.registry.gauge(
            "mt5crs_gateway_authenticator_up", "Whether handshakes are answered."
        )
