"""A terminal process that is forked off the test: quick to start; it dies at the byte that the test names."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mt5crs.broker import terminal, wire
from mt5crs.broker.interface import Broker
from mt5crs.broker.remote import Deadlines, RemoteBroker, opening_of
from mt5crs.broker.sim.backend import Profile, SimulatedBroker
from mt5crs.broker.sim.profile import Simulator
from mt5crs.broker.wire import Opening

NEVER = 1 << 40
_open: set[int] = set()
_LEFT = struct.Struct("<qq")


class Fate:
    """How many more bytes a process may read, and write, before it kills itself. Shared with it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LEFT.size)
        self.set()

    def set(self, reads: int = NEVER, writes: int = NEVER) -> None:
        _LEFT.pack_into(self._memory, 0, reads, writes)

    def left(self) -> tuple[int, int]:
        reads, writes = _LEFT.unpack_from(self._memory)
        return reads, writes

    def read(self, descriptor: int, size: int) -> bytes:
        reads, writes = self.left()
        data = os.read(descriptor, size)
        reads, writes = self.left()  # set anew while it waited
        if len(data) > reads:
            self._die()
        self.set(reads - len(data), writes)
        return data

    def write(self, descriptor: int, data: bytes) -> int:
        reads, writes = self.left()
        part = data[: max(0, writes)]
        self.set(reads, writes - len(part))  # before: the test goes on as soon as it has read
        os.write(descriptor, part)
        if len(part) < len(data):
            self._die()
        return len(part)

    def _die(self) -> None:
        self.set()  # the next process lives
        os.kill(os.getpid(), signal.SIGKILL)


class Forked:
    """Implements `mt5crs.broker.process.Child`. `run(pipes)` is what the process does."""

    def __init__(self, run: Callable[[wire.Pipes], None], fate: Fate) -> None:
        read_end, self.questions = os.pipe()
        self.answers, write_end = os.pipe()
        _open.update((self.questions, self.answers))
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                for each in _open:  # those of others, too: they must see their pipes end
                    os.close(each)
                run(wire.Pipes(read_end, write_end, read=fate.read, write=fate.write))
                status = 0
            finally:
                os._exit(status)
        os.close(read_end)
        os.close(write_end)
        self._ended = ""

    def kill(self) -> None:
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)

    def ended(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while not self._ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._ended = f"signal {-code}" if code < 0 else f"status {code}"
            elif time.monotonic() > deadline:
                return ""
            else:
                time.sleep(0.0005)
        return self._ended

    def said(self) -> str:
        return ""

    def close(self) -> None:
        for each in {self.questions, self.answers} & _open:
            os.close(each)
            _open.remove(each)


def simulated(opening: Opening) -> Broker:
    """The simulator of an opening, without syncs to the disk."""
    simulator = msgspec.msgpack.decode(opening.configuration, type=Simulator)
    return SimulatedBroker(Path(simulator.directory), simulator.profile, durable=False)


def forked_broker(
    directory: Path,
    *,
    opener: Callable[[Opening], Broker] = simulated,
    run: Callable[[wire.Pipes], None] | None = None,
    fate: Fate | None = None,
    deadlines: Deadlines | None = None,
    lost: Callable[..., None] = lambda *_: None,
    other_clock: bool = False,
) -> RemoteBroker:
    """A broker in a forked process; `run` instead of `opener` for one that is no terminal process at all."""
    settings: Any = Simulator(directory=str(directory / "sim"), profile=Profile(balance=1e6))
    shared = fate or Fate()
    return RemoteBroker(
        lambda: Forked(run or terminal.Server(opener).serve, shared),
        opening_of("sim", str(directory), settings),
        deadlines or Deadlines(start_s=10, read_s=10, order_s=10),
        lost=lost,
        other_clock=other_clock,
    )
