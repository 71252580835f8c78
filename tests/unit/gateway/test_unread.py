"""Replies that are asked for and not read: libzmq keeps 64 of a connection, however large they are."""

import contextlib
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zmq

from mt5crs.gateway import connections
from mt5crs.gateway.connection_guard import ConnectionGuard
from mt5crs.gateway.connections import Connections
from mt5crs.gateway.metrics import GatewayMetrics
from mt5crs.gateway.server import Server
from tests.unit.gateway.running import eventually

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells what the other end has taken"
)
REPLY = bytes(100_000)


class Door:
    """A ROUTER whose connections a real connection_guard watches, and the server's own way of sending."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "MAX_UNREAD_BYTES", 2_000_000)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.cuts: list[tuple[int, str]] = []
        self.connections = Connections(per_source=64)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.SNDHWM, 64)
        self.keeper = ConnectionGuard(
            self.context,
            self.connections,
            GatewayMetrics(),
            lambda _, port, why: self.cuts.append((port, why)),
        )
        self.keeper.watch(self.router, "requests")
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.keeper.start()

    def client(self) -> "zmq.Socket[bytes]":
        made = self.context.socket(zmq.DEALER)
        made.setsockopt(zmq.RCVHWM, 1)
        made.setsockopt(zmq.RCVBUF, 4096)
        made.setsockopt(zmq.LINGER, 0)
        made.connect(f"tcp://127.0.0.1:{self.port}")
        made.send(b"ask")
        return made

    def asked(self) -> tuple[bytes, int]:
        """Routing id and descriptor of a client that has asked, and of which the connection guard knows."""
        assert self.router.poll(60_000)
        eventually(self.connections.count)
        routing_id = self.router.recv()
        frame = self.router.recv(copy=False)
        return routing_id, int(frame.get(zmq.SRCFD))

    def reply(self, routing_id: bytes, fd: int) -> None:
        """As `Server._send` does, which counts what was handed over."""
        self.router.send_multipart([routing_id, REPLY], zmq.NOBLOCK)
        self.connections.replied[fd] = self.connections.replied.get(fd, 0) + len(REPLY)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    made = Door(monkeypatch)
    yield made
    made.keeper.stop()
    made.context.destroy(linger=0)


def test_who_does_not_read_is_cut_off(door: Door) -> None:
    client = door.client()
    asked = door.asked()
    for _ in range(60):
        door.reply(*asked)
    eventually(lambda: door.cuts)
    assert [why for _, why in door.cuts] == ["unread"]
    client.close(0)


def test_who_reads_is_not_however_much_it_is(door: Door) -> None:
    client = door.client()
    asked = door.asked()
    for _ in range(100):
        door.reply(*asked)
        assert client.recv() == REPLY
    until = time.monotonic() + 2.2  # the connection guard looks every two seconds
    while time.monotonic() < until:
        with contextlib.suppress(zmq.Again):
            client.recv(zmq.NOBLOCK)
        assert door.cuts == []
        time.sleep(0.05)
    client.close(0)


class Taking:
    """A socket that takes everything, or nothing."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full

    def send(self, _: bytes, __: int) -> None:
        if self.full:
            raise zmq.Again


@pytest.mark.parametrize(
    ("full", "reply", "counted"),
    [(False, REPLY, {7: len(REPLY)}), (True, REPLY, {}), (False, b"small", {})],
)
def test_the_server_counts_large_replies_that_it_has_handed_over(
    full: bool, reply: bytes, counted: dict[int, int]
) -> None:
    server, socket = Server.__new__(Server), Taking(full=full)
    server._metrics, server._came_by, server._replied = GatewayMetrics(), {b"id": 7}, {}
    server._requests = cast(Any, SimpleNamespace(socket=socket))
    server._send(cast(Any, socket), [b"id", reply])
    server._send(cast(Any, Taking()), [b"id", reply])  # the other door's names are its own
    assert server._replied == counted
