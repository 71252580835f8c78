"""A gateway whose terminal process does what a terminal and its package have been seen to do.

`python -m tests.unit.gateway.hostile_terminal` is the gateway; with a number, its terminal process. Volumes
say what comes of an order once it has been executed, files in STATE_DIR what becomes of the rest.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import msgspec

from mt5crs.broker import process, terminal
from mt5crs.broker.interface import Books, Broker, BrokerError, TradeRequest, TradeResult
from mt5crs.broker.sim.backend import SimulatedBroker
from mt5crs.broker.sim.profile import Simulator
from mt5crs.broker.wire import Opening
from mt5crs.gateway.__main__ import main
from mt5crs.protocol.records import Identity
from mt5crs.service import exits

HOLDS_THE_LOCK, RAISES, CRASHES = 0.66, 0.67, 0.68
RESTARTED, REFUSES, RAISES_ALWAYS, SLOW = "restarted", "refuses", "raises", "slow"
SLOW_S = 0.2
MODULE = "tests.unit.gateway.hostile_terminal"


class Hostile(SimulatedBroker):
    """The simulator, but for those volumes and files."""

    state: Path

    def start(self) -> None:
        if (self.state / REFUSES).exists():
            raise BrokerError(-6, "Terminal: Authorization failed")
        (self.state / RESTARTED).unlink(missing_ok=True)

    def identity(self) -> Identity:
        if (self.state / RESTARTED).exists():
            raise BrokerError(-10004, "account_info failed: No IPC connection")
        if (self.state / RAISES_ALWAYS).exists():
            raise SystemError("returned a result with an exception set")
        return super().identity()

    def books(self) -> Books:
        if (self.state / SLOW).exists():
            time.sleep(SLOW_S)
        return super().books()

    def send(self, request: TradeRequest) -> TradeResult | None:
        result = super().send(request)
        if request.volume == HOLDS_THE_LOCK:
            ctypes.PyDLL(None).sleep(60)
        if request.volume == RAISES:
            raise SystemError("returned a result with an exception set")
        if request.volume == CRASHES:
            os.abort()
        return result


def opened(opening: Opening) -> Broker:
    """The hostile broker of an opening."""
    simulator = msgspec.msgpack.decode(opening.configuration, type=Simulator)
    broker = Hostile(Path(simulator.directory), simulator.profile, allow_faults=simulator.allow_faults)
    broker.state = Path(opening.state_dir)
    return broker


if __name__ == "__main__":
    if len(sys.argv) > 1:
        exits.leave(terminal.main(sys.argv[1:], opened))
    process.MODULE = MODULE
    exits.leave(main())
