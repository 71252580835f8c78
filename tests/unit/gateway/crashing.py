"""Journal and simulated broker that die at chosen points, as under kill -9."""

from collections.abc import Iterable
from typing import Any, Protocol

from mt5crs.broker.interface import TradeRequest, TradeResult
from mt5crs.broker.sim.backend import SimulatedBroker
from mt5crs.gateway.journal import Entry, Journal, Sighting
from mt5crs.protocol.replies import Error, OrderResult

POINTS = ("before_record", "after_record", "before_send", "after_send", "before_settle", "after_settle")


class Crash(BaseException):
    """kill -9, here and now."""


class World(Protocol):
    """Whoever decides when to die, and watches what goes out."""

    def crash_if(self, point: str) -> None:
        """Raise Crash if this is the point."""

    def about_to_send(self, trade: TradeRequest) -> None:
        """The broker is about to get this request."""


class CrashingJournal(Journal):
    """The gateway's journal."""

    machine: World

    def record(self, entry: Entry) -> None:
        """Add an entry."""
        self.machine.crash_if("before_record")
        super().record(entry)
        self.machine.crash_if("after_record")

    def settle(
        self, entry: Entry, answer: OrderResult, failures: int, state: Any, seen: Iterable[Sighting] = ()
    ) -> None:
        """Record the outcome."""
        self.machine.crash_if("before_settle")
        super().settle(entry, answer, failures, state, seen)
        self.machine.crash_if("after_settle")

    def withdraw(self, entry: Entry, answer: Error, refused_msc: int) -> None:
        """Record that it was not sent."""
        self.machine.crash_if("before_settle")
        super().withdraw(entry, answer, refused_msc)
        self.machine.crash_if("after_settle")


class CrashingBroker(SimulatedBroker):
    """The simulated broker."""

    machine: World

    def send(self, request: TradeRequest) -> TradeResult | None:
        """Execute a request."""
        self.machine.crash_if("before_send")
        if not (self.faults.send and self.faults.send[0].kind == "too_late"):
            self.machine.about_to_send(request)
        result = super().send(request)
        self.machine.crash_if("after_send")
        return result
