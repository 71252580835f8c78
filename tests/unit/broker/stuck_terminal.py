"""A terminal process whose broker holds the interpreter's lock when it is asked for the quote of HOLD."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from mt5crs.broker import terminal
from mt5crs.broker.interface import Broker
from mt5crs.broker.sim.backend import Profile, SimulatedBroker
from mt5crs.broker.wire import Opening
from mt5crs.protocol.records import Tick
from mt5crs.service import exits


class Stuck(SimulatedBroker):
    """The simulator, but for one symbol."""

    directory: Path

    def tick(self, name: str) -> Tick | None:
        if name == "HOLD":
            (self.directory / "holding").touch()
            ctypes.PyDLL(None).sleep(600)
        return super().tick(name)


def opened(opening: Opening) -> Broker:
    directory = Path(opening.state_dir)
    broker = Stuck(directory / "sim", Profile(), durable=False)
    broker.directory = directory
    return broker


if __name__ == "__main__":
    exits.leave(terminal.main(sys.argv[1:], opened))
