"""Watches the connections that libzmq accepts, and shuts down those over the bounds. A thread of its own.

libzmq accepts whoever comes, keeps who says nothing until the handshake's time is over, and gathers a
message's frames for ever: it bounds the size of a single frame only. Replies that nobody reads it bounds by
number, however large. Its monitor tells each connection's descriptor; the kernel tells how much came in, and
how much the other end has taken. A shut-down connection looks to libzmq as if the peer had left, and what it
had gathered is thrown away.
"""

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from mt5crs.protocol.addresses import canonical
from mt5crs.protocol.curve import Context, Socket

from .connections import Connections, Peer
from .metrics import GatewayMetrics

_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_EVENT = struct.Struct("=hi")
"""What libzmq's monitor says first: event, descriptor. pyzmq's own reader of it would import asyncio."""
_TICK_MS = 100
_SCAN_S = 2.0
_GROWTH_BYTES = 8 * 1024 * 1024
"""When memory has grown by so much since the last scan, the next one is due at once."""
_RESERVED_FILES = 64
"""Descriptors kept from connections: for clients of `/health`, the self-test, files that are read again."""
_ACKED, _RECEIVED = slice(120, 128), slice(128, 136)
"""`tcpi_bytes_acked` and `tcpi_bytes_received` in struct tcp_info (linux/tcp.h, since 4.1)."""


class ConnectionGuard:
    """Runs until stopped. `cut` may be called by the network thread."""

    def __init__(
        self,
        context: Context,
        connections: Connections,
        metrics: GatewayMetrics,
        cut: Callable[[str, int, str], None],
    ) -> None:
        """`cut(address, port, reason)` is told of each connection that is shut down."""
        self._context = context
        self.connections = connections
        self._metrics = metrics
        self._tell = cut
        self._death = ""
        self._endpoints: dict[Socket, str] = {}
        self._orders: list[tuple[int, str]] = []
        self._stopping = threading.Event()
        self._memory = _Memory()
        self._others = _open_files()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
        metrics.connections.from_callable(connections.count)
        metrics.connections_of_one.from_callable(connections.most_from_one)

    def watch(self, watched: "zmq.Socket[Any]", endpoint: str) -> None:
        """Have a socket's connections told. Before `start`, and before the socket is bound."""
        where = f"inproc://connections-{endpoint}"
        watched.monitor(where, _EVENTS)
        ear: Socket = self._context.socket(zmq.PAIR)
        ear.setsockopt(zmq.RCVHWM, 0)  # or libzmq's own thread waits when this one is behind
        ear.setsockopt(zmq.LINGER, 0)
        ear.connect(where)
        self._endpoints[ear] = endpoint

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def death(self) -> str:
        """Why the thread has ended by itself; empty if it has not."""
        return self._death

    def cut(self, fd: int, reason: str) -> None:
        """Have a connection shut down soon. Safe from any thread."""
        self._orders.append((fd, reason))

    def _run(self) -> None:
        poller = zmq.Poller()
        for ear in self._endpoints:
            poller.register(ear, zmq.POLLIN)
        next_scan = 0.0
        try:
            while not self._stopping.is_set():
                for ear, _ in poller.poll(_TICK_MS):
                    self._hear(ear, self._endpoints[ear])
                while self._orders:
                    self._shut(*self._orders.pop(0))
                if time.monotonic() >= next_scan or self._memory.grown():
                    self._scan()
                    next_scan = time.monotonic() + _SCAN_S
        except BaseException as error:
            self._death = f"the connection guard's thread died: {error!r}"
            raise
        finally:
            for ear in self._endpoints:
                ear.close()

    def _hear(self, ear: Socket, endpoint: str) -> None:
        for _ in range(1000):  # then the other endpoints get their turn
            try:
                event, fd = _EVENT.unpack(ear.recv_multipart(zmq.NOBLOCK)[0])
            except zmq.Again:
                return
            if event != zmq.EVENT_ACCEPTED:
                self.connections.closed(fd, endpoint)
                continue
            peer = _peer(fd)
            if peer is None:
                continue  # gone already
            self.connections.accepted(fd, endpoint, peer)
            while (excess := self.connections.excess(peer[0], self._most())) is not None:
                self._shut(*excess)

    def _scan(self) -> None:
        for fd in list(self.connections.incomplete(_received)):
            self._shut(fd, "incomplete")
        for fd in list(self.connections.unread(_taken)):
            self._shut(fd, "unread")
        self._memory.looked()

    def _shut(self, fd: int, reason: str) -> None:
        peer = self.connections.peer(fd)
        self.connections.drop(fd)
        if peer is None or _peer(fd) != peer:
            return  # it went by itself, and the number may be somebody else's
        self._metrics.connections_cut.inc(reason)
        self._tell(peer[0], peer[1], reason)
        with _borrowed(fd) as connection:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # gone in this very moment

    def _most(self) -> int:
        return max(1, _file_limit() - self._others - _RESERVED_FILES)


class _Memory:
    """Whether this process has grown since the last look; never, where the system does not tell."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else -1
        self._seen = self._now()

    def _now(self) -> int:
        return int(os.pread(self._file, 100, 0).split()[1]) * 4096 if self._file >= 0 else 0

    def grown(self) -> bool:
        return self._now() > self._seen + _GROWTH_BYTES

    def looked(self) -> None:
        self._seen = self._now()


@contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object over a descriptor that stays libzmq's."""
    made = socket.socket(fileno=fd)
    try:
        yield made
    finally:
        made.detach()


def _peer(fd: int) -> Peer | None:
    try:
        with _borrowed(fd) as connection:
            address, port = connection.getpeername()[:2]
    except (OSError, ValueError, TypeError):  # closed, or another kind of descriptor by now
        return None
    return canonical(address), port


def _received(fd: int, peer: Peer) -> int | None:
    """Bytes that a connection has sent; 0 where the system does not tell, None when it is no longer there."""
    if _peer(fd) != peer:
        return None
    return _counted(fd, _RECEIVED) if sys.platform == "linux" else 0


def _taken(fd: int, peer: Peer) -> int | None:
    """Bytes that the other end has acknowledged; None where the system does not tell, or it has gone."""
    if sys.platform != "linux" or _peer(fd) != peer:
        return None
    return _counted(fd, _ACKED) or None


def _counted(fd: int, field: slice) -> int | None:
    """A number of the kernel's about a connection; 0 if it is too old to tell, None when that has gone."""
    try:
        with _borrowed(fd) as connection:
            information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.stop)
    except OSError:
        return None
    return int(struct.unpack("=Q", information[field])[0]) if len(information) >= field.stop else 0


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else 0


def _file_limit() -> int:
    """Most descriptors of this process; Windows has none that a gateway could reach."""
    if sys.platform == "win32":
        return 1_000_000
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
