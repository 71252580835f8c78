"""An order that every limit allows, and what must hold for any orders."""

from __future__ import annotations

from typing import Any

from mt5crs.broker.sim.backend import SimulatedBroker

TERMS: dict[str, Any] = {
    "symbol": "EURUSD",
    "side": "BUY",
    "type": "MARKET",
    "volume": 0.1,
    "price": None,
    "sl": None,
    "tp": None,
    "max_slippage_points": None,
    "filling": "IOC",
    "expiration_msc": None,
}
"""A market order, without what a request adds to it."""


def check_none_is_doubled(broker: SimulatedBroker) -> None:
    """Assert that no comment id of ours stands on two orders in the broker's books."""
    tickets: dict[str, set[int]] = {}
    for order in (*broker._store.closed_orders(0), *broker._store.orders()):
        if order.comment.startswith("c-"):
            tickets.setdefault(order.comment, set()).add(order.ticket)
    assert all(len(found) == 1 for found in tickets.values()), tickets
