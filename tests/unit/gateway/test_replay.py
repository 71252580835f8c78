"""What was recorded on the network is worth nothing again, and nobody gets less protection by asking."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator

import pytest
import zmq

from mt5crs.protocol import requests
from mt5crs.protocol.codec import encode
from mt5crs.protocol.curve import secure_client
from mt5crs.protocol.replies import Error, OrderResult, Pong
from tests.unit.gateway.running import MAGIC, Caller, Running


class Wire:
    """Passes one connection on to the gateway and keeps what the client sent."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._to = port
        self.recorded = b""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        client, _ = self._listening.accept()
        server = socket.create_connection(("127.0.0.1", self._to))
        back = threading.Thread(target=self._pass, args=(server, client, False), daemon=True)
        back.start()
        self._pass(client, server, True)

    def _pass(self, source: socket.socket, target: socket.socket, record: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if record:
                    self.recorded += data
                target.sendall(data)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def wire(gateway: Running) -> Iterator[Wire]:
    made = Wire(gateway.port)
    yield made
    made.close()


def test_a_recorded_order_is_not_carried_out_again(gateway: Running, wire: Wire) -> None:
    """Every connection has keys of its own: byte for byte the same, and the gateway hears nothing."""
    trader = gateway.client("strategy")
    trader.lease()
    eavesdropped = Caller.__new__(Caller)
    eavesdropped.name, eavesdropped.magic, eavesdropped.epoch = "strategy", MAGIC, trader.epoch
    eavesdropped.socket = gateway.context.socket(zmq.DEALER)
    secure_client(eavesdropped.socket, gateway.public, gateway.secrets["strategy"])
    eavesdropped.socket.connect(f"tcp://127.0.0.1:{wire.port}")
    assert isinstance(eavesdropped.order(), OrderResult)
    counted = gateway.metric("mt5crs_gateway_client_requests_total")
    with socket.create_connection(("127.0.0.1", gateway.port)) as attacker:
        attacker.sendall(wire.recorded)
        attacker.settimeout(8)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while data := attacker.recv(65536):
                answer += data
    assert b"ORDER_RESULT" not in answer
    assert gateway.metric("mt5crs_gateway_client_requests_total") == counted
    assert len(gateway.books("positions")) == 1


def test_an_order_that_its_own_client_sends_twice_is_carried_out_once(
    gateway: Running, trader: Caller
) -> None:
    frame = encode(requests.OrderSend(v=1, id="once", client="strategy", magic=MAGIC, **trader.terms()))
    first, second = trader.raw([frame]), trader.raw([frame])
    assert isinstance(first, OrderResult)
    assert isinstance(second, OrderResult)
    assert (first.replayed, second.replayed, second.order) == (False, True, first.order)
    assert len(gateway.books("positions")) == 1


def test_a_weaker_mechanism_or_older_protocol_gets_no_further(gateway: Running) -> None:
    """ZMTP (RFC 37): a greeting of 64 bytes names version and mechanism."""
    for version, mechanism in itertools.product((b"\3\0", b"\2\0", b"\1\0"), (b"NULL", b"PLAIN", b"")):
        greeting = b"\xff" + bytes(8) + b"\x7f" + version + mechanism.ljust(20, b"\0") + bytes(32)
        with socket.create_connection(("127.0.0.1", gateway.port)) as attacker:
            attacker.settimeout(8)
            attacker.sendall(greeting[:64])
            heard = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while data := attacker.recv(65536):
                    heard += data
        assert len(heard) <= 64, (version, mechanism)  # its own greeting, if that
    assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)


def test_a_version_of_the_protocol_that_is_not_spoken_is_refused(gateway: Running) -> None:
    for version in (0, 2):
        reply = gateway.client("watcher").ask(requests.Ping, v=version)
        assert isinstance(reply, Error)
        assert reply.code == "BAD_VERSION"
