"""The order manager over real files and the simulated broker, without sockets: quick to open often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mt5crs.broker.sim.backend import Command, Profile, SimulatedBroker
from mt5crs.broker.sim.faults import Faults, SendFault
from mt5crs.broker.sim.terminal import Showing
from mt5crs.gateway.control import Control
from mt5crs.gateway.journal import Journal
from mt5crs.gateway.ledger import Ledger
from mt5crs.gateway.order_manager import OrderManager
from mt5crs.gateway.stream import Stream
from mt5crs.gateway.watch import Watch
from mt5crs.protocol.fields import MarginMode
from mt5crs.protocol.replies import Error, OrderResult
from mt5crs.protocol.requests import OrderCancel, OrderSend, PositionClose, Submission
from mt5crs.settings.gateway import Limits
from tests.unit.orders import TERMS

MAGIC, LOGIN, SERVER = 7, 90_000_001, "Sim-Demo"
START_MSC = 1_700_000_000_000
LAG_S, RESOLVE_AFTER_S = 10.0, 30.0
"""For so long the books may be behind, and an order may not be given up."""


class Counter:
    """One order manager with its lease taken. Prices stand still at 1.1 unless moved."""

    def __init__(
        self,
        directory: Path,
        margin_mode: MarginMode = "HEDGING",
        *,
        now: int = START_MSC,
        look: bool = True,
        quote_life_s: float = 900.0,
        **limits: Any,
    ) -> None:
        self.directory = directory
        self.now = now
        self.quote_life_s = quote_life_s
        usual: dict[str, Any] = {
            "dry_run": False,
            "symbols": ["EURUSD"],
            "max_order_volume": 5.0,
            "max_position_volume": 20.0,
        }
        self.limits = {MAGIC: Limits(**{**usual, **limits})}
        self.notes: list[str] = []
        self.build(margin_mode)
        self.price(1.1)
        if look:
            self.order_manager.look()
        self.epoch = self.control.acquire(MAGIC, "c", "run", 60_000)
        self._number = 0

    def build(self, margin_mode: MarginMode) -> None:
        """Open broker and files, and put the order manager over them."""
        profile = Profile(balance=1e6, margin_mode=margin_mode)
        self.broker = SimulatedBroker(self.directory / "sim", profile, clock=lambda: self.now, durable=False)
        self.journal = Journal(self.directory / "journal.db", "x", durable=False)
        self.control = Control(
            self.directory / "control.db",
            "x",
            monotonic=lambda: self.now / 1000,
            wall_msc=lambda: self.now,
            durable=False,
        )
        stream, ledger = Stream("s", lambda _: None), Ledger(self.broker)
        self.order_manager = OrderManager(
            self.broker,
            self.journal,
            self.control,
            Watch(self.broker, stream, ledger, monotonic=lambda: self.now / 1000),
            ledger,
            stream,
            lambda: self.limits,
            LOGIN,
            SERVER,
            lambda event, **_: self.notes.append(event),
            books_lag_s=LAG_S,
            resolve_after_s=RESOLVE_AFTER_S,
            quote_life_s=self.quote_life_s,
            monotonic=lambda: self.now / 1000,
        )

    def restarted(self, *, look: bool = True) -> Counter:
        """The same limits and files, opened again; `look`: at the books, at once."""
        for part in (self.broker, self.journal, self.control):
            part.close()
        again = Counter(self.directory, now=self.now, look=look)
        again.limits, again._number = self.limits, self._number
        return again

    def restarted_with(self, **limits: Any) -> Counter:
        """Opened again under such limits."""
        again = self.restarted(look=False)
        again.limits = {MAGIC: msgspec.structs.replace(again.limits[MAGIC], **limits)}
        again.order_manager.look()
        return again

    def price(self, bid: float, ask: float | None = None) -> None:
        """Set the quote of EURUSD."""
        self.broker.command(
            Command(do="price", symbol="EURUSD", bid=bid, ask=bid + 0.0001 if ask is None else ask)
        )

    def fault(self, *send: SendFault, **flags: Any) -> None:
        """Replace the broker's faults."""
        self.broker.command(Command(do="faults", faults=Faults(send=list(send), **flags)))

    def showing(self, **knobs: Any) -> None:
        """Replace the broker's faults by such a terminal."""
        self.fault(terminal=Showing(**knobs))

    def order(self, **changes: Any) -> OrderResult | Error:
        """ORDER_SEND."""
        return self.submit(OrderSend(**{**self._head(), **TERMS, **changes}))

    def close(self, position: int, *, operator: bool = False, **changes: Any) -> OrderResult | Error:
        """POSITION_CLOSE."""
        terms: dict[str, Any] = {"position": position, "volume": None, "max_slippage_points": None}
        return self.submit(PositionClose(**{**self._head(), **terms, **changes}), operator=operator)

    def cancel(self, order: int, *, operator: bool = False, **changes: Any) -> OrderResult | Error:
        """ORDER_CANCEL."""
        return self.submit(OrderCancel(**{**self._head(), "order": order, **changes}), operator=operator)

    def submit(self, request: Submission, *, operator: bool = False) -> OrderResult | Error:
        """Any submission."""
        reply = self.order_manager.submit(request, lambda: 0, operator=operator)
        assert isinstance(reply, (OrderResult, Error))
        return reply

    def _head(self) -> dict[str, Any]:
        self._number += 1
        return {
            "v": 1,
            "id": f"m{self._number}",
            "client": "c",
            "magic": MAGIC,
            "client_order_id": f"o{self._number}",
            "lease_epoch": self.epoch,
            "valid_ms": 5000,
        }
