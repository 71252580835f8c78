"""A trader for tests: orders through the real gateway, with the real lease."""

from __future__ import annotations

import uuid
from typing import Any

from mt5crs.client.gateway import GatewayClient
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import Position

INSTANCE = "trader"


class Trader:
    """Holds the lease of the rehearsal magic number."""

    def __init__(self, fleet: Fleet) -> None:
        self.client: GatewayClient = fleet.client("strategy")
        lease = self.client.call(
            requests.LeaseAcquire, replies.Lease, magic=MAGIC, instance=INSTANCE, ttl_ms=60_000
        )
        self.epoch = lease.epoch

    def books(self) -> list[Position]:
        """Positions of its own magic number; its key shows no others."""
        return self.client.snapshot(MAGIC, history_since_msc=None, whole_account=False).positions

    def send(self, side: str, volume: float, kind: str = "MARKET", **changes: Any) -> replies.OrderResult:
        """ORDER_SEND."""
        terms: dict[str, Any] = {
            "symbol": "EURUSD",
            "side": side,
            "type": kind,
            "volume": volume,
            "price": None,
            "sl": None,
            "tp": None,
            "max_slippage_points": None,
            "filling": "RETURN" if kind != "MARKET" else "IOC",
            "expiration_msc": None,
            "client_order_id": uuid.uuid4().hex,
            "lease_epoch": self.epoch,
            "valid_ms": 2000,
        }
        return self.client.call(requests.OrderSend, replies.OrderResult, magic=MAGIC, **(terms | changes))

    def cancel(self, order: int) -> replies.OrderResult:
        """ORDER_CANCEL."""
        return self.client.call(
            requests.OrderCancel,
            replies.OrderResult,
            magic=MAGIC,
            client_order_id=uuid.uuid4().hex,
            lease_epoch=self.epoch,
            valid_ms=2000,
            order=order,
        )

    def bid(self) -> float:
        """Current bid of EURUSD."""
        return self.client.call(requests.TickQuery, replies.TickReply, magic=MAGIC, symbol="EURUSD").tick.bid
