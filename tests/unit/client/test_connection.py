"""The client library against gateways that are absent, wrong, silent or talkative."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from mt5crs.client.connection import Connection, Peer
from mt5crs.client.errors import (
    GatewaySilentError,
    GatewayUnreachableError,
    KeyRefusedError,
    MalformedReplyError,
    RefusedError,
)
from mt5crs.client.gateway import GatewayClient, Patience
from mt5crs.client.subscription import Sequence, Subscription
from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.protocol import curve
from mt5crs.protocol.curve import new_keypair
from mt5crs.protocol.events import HEARTBEAT_TOPIC, Heartbeat, PositionClosedEvent
from mt5crs.protocol.replies import Error, Pong
from mt5crs.protocol.requests import Ping, Request
from tests.unit.client.peers import Answer, ScriptedGateway, Wire

TOPIC = "trade.1."
MORE_THAN_A_QUEUE_HOLDS = 3000
"""ZeroMQ's queues hold 1000 messages at either end."""
curve_secure_client = curve.secure_client


def pong(request: Request) -> Pong:
    return Pong(v=1, id=request.id, time_msc=1, stream="s")


def client_of(gateway: ScriptedGateway, server_key: str | None = None) -> GatewayClient:
    peer = Peer(
        host="127.0.0.1",
        port=gateway.port,
        pub_port=gateway.pub_port,
        server_key=server_key or gateway.public,
        client_name="c",
        secret_key=new_keypair()[1],
    )
    return GatewayClient(peer, Patience(0.5, 3, 0.01))


def test_an_answer_comes_back() -> None:
    with ScriptedGateway(pong) as gateway, client_of(gateway) as client:
        assert client.call(Ping, Pong, magic=1).stream == "s"
        assert client.call(Ping, Pong, magic=1).stream == "s"
        assert len(gateway.sockets) == 1  # no new handshake while all is well


def test_a_connection_that_nobody_closed_blocks_no_other() -> None:
    for _ in range(20):
        with ScriptedGateway(pong) as gateway:
            client_of(gateway).call(Ping, Pong, magic=1)
    with ScriptedGateway(pong) as gateway, client_of(gateway) as client:
        assert client.call(Ping, Pong, magic=1).stream == "s"


def test_a_gateway_that_hangs_up_for_hours_blocks_no_other_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def impatient(client: curve.Socket, server_public: str, secret: str) -> None:
        curve_secure_client(client, server_public, secret)
        client.setsockopt(zmq.RECONNECT_IVL, 1)
        client.setsockopt(zmq.RECONNECT_IVL_MAX, 0)

    hung_up = 0
    with ScriptedGateway(pong) as gateway, client_of(gateway) as client, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(10)
        monkeypatch.setattr(curve, "secure_client", impatient)
        idle = Connection(msgspec.structs.replace(client.peer, port=listener.getsockname()[1]))
        while hung_up < MORE_THAN_A_QUEUE_HOLDS:
            listener.accept()[0].close()
            hung_up += 1
        assert client.call(Ping, Pong, magic=1).stream == "s"
        idle.close()


def test_nobody_there_is_known_to_be_not_sent() -> None:
    port, pub_port = free_ports(2)
    public, secret = new_keypair()
    peer = Peer(
        host="127.0.0.1", port=port, pub_port=pub_port, server_key=public, client_name="c", secret_key=secret
    )
    with GatewayClient(peer, Patience(0.1, 2, 0.0)) as client, pytest.raises(GatewayUnreachableError):
        client.call(Ping, Pong, magic=1)
    assert secret not in repr(peer)


def test_wrong_server_key_is_named_at_once() -> None:
    with ScriptedGateway(pong) as gateway, client_of(gateway, new_keypair()[0]) as client:
        with pytest.raises(KeyRefusedError, match="GATEWAY_PUBLIC_KEY"):
            client.call(Ping, Pong, magic=1)
        assert client.last_attempts == 1


def test_silence_costs_every_attempt_and_says_so() -> None:
    with ScriptedGateway(lambda _: None) as gateway, client_of(gateway) as client:
        with pytest.raises(GatewaySilentError):
            client.call(Ping, Pong, magic=1)
        assert len(gateway.requests) == len(gateway.sockets) == 3


def test_answer_of_another_request_is_dropped() -> None:
    def answer(request: Request) -> list[Answer]:
        return [Pong(v=1, id="someone-else", time_msc=1, stream="stale"), pong(request)]

    with ScriptedGateway(answer) as gateway, client_of(gateway) as client:  # type: ignore[arg-type]
        assert client.call(Ping, Pong, magic=1).stream == "s"


@pytest.mark.parametrize("noise", [b"", b"PONG:", b"\xc1", b"{}", b"\x81\xa4kind\xa4PONG"])
def test_noise_is_a_typed_error(noise: bytes) -> None:
    with (
        ScriptedGateway(lambda _: noise) as gateway,
        client_of(gateway) as client,
        pytest.raises(MalformedReplyError),
    ):
        client.call(Ping, Pong, magic=1)


@pytest.mark.parametrize(("retry_ms", "attempts"), [(None, 1), (1, 3)])
def test_refusals_are_retried_only_when_the_gateway_says_so(retry_ms: int | None, attempts: int) -> None:
    def answer(request: Request) -> Error:
        return Error(
            v=1,
            id=request.id,
            code="BUSY",
            field="",
            message="m",
            remedy="wait",
            retry_ms=retry_ms,
            final=False,
        )

    with ScriptedGateway(answer) as gateway, client_of(gateway) as client:
        with pytest.raises(RefusedError, match="BUSY"):
            client.call(Ping, Pong, magic=1)
        assert len(gateway.requests) == attempts


def test_events_and_noise_on_the_event_socket() -> None:
    with ScriptedGateway(pong) as gateway:
        subscription = Subscription(client_of(gateway).peer, [HEARTBEAT_TOPIC])
        beat = Heartbeat(v=1, stream="s", seq=1, time_msc=1, interval_ms=100, state="ready", seqs={})
        heard: list[object] = []
        for _ in range(100):
            gateway.publish(HEARTBEAT_TOPIC, beat)
            heard += [event for _, event in subscription.receive(0.1)]
            if heard:
                break
        assert heard[0] == beat
        subscription.close()


def test_a_gateway_that_begins_during_a_pause_is_asked_at_once() -> None:
    """Until it listens, connections are refused; the pause between two attempts may be long."""
    (port,) = free_ports(1)
    with ScriptedGateway(pong) as gateway, ExitStack() as wires:
        peer = msgspec.structs.replace(client_of(gateway).peer, port=port)
        begins = threading.Timer(1.0, lambda: wires.enter_context(Wire(gateway.port, port)))
        begins.start()
        began = time.monotonic()
        with GatewayClient(peer, Patience(0.2, 2, 20.0)) as client:
            client.call(Ping, Pong, magic=0)
            assert client.last_attempts == 2
        assert time.monotonic() - began < 10
        begins.join()


def test_a_pause_is_kept_when_nobody_comes() -> None:
    public, secret = new_keypair()
    port, pub_port = free_ports(2)
    peer = Peer(
        host="127.0.0.1", port=port, pub_port=pub_port, server_key=public, client_name="c", secret_key=secret
    )
    began = time.monotonic()
    with GatewayClient(peer, Patience(0.1, 2, 0.5)) as client, pytest.raises(GatewayUnreachableError):
        client.call(Ping, Pong, magic=1)
    assert time.monotonic() - began >= 0.7


@given(lost=st.sets(st.integers(1, 30)), start=st.integers(0, 10))
def test_any_lost_event_is_noticed_by_the_next_event_or_heartbeat(lost: set[int], start: int) -> None:
    sequence = Sequence([TOPIC])
    sequence.reset("s", {TOPIC: start})
    noticed = False
    for number in range(1, 31):
        if number not in lost:
            event = PositionClosedEvent(v=1, stream="s", seq=number, magic=1, identifier=1)
            noticed = sequence.accept(TOPIC, event) is not None or noticed
    beat = Heartbeat(v=1, stream="s", seq=1, time_msc=1, interval_ms=1, state="ready", seqs={TOPIC: 30})
    noticed = sequence.accept(HEARTBEAT_TOPIC, beat) is not None or noticed
    assert noticed == any(number > start for number in lost)


def test_another_stream_is_always_a_reason_to_resync() -> None:
    sequence = Sequence([TOPIC])
    sequence.reset("s", {TOPIC: 5})
    event = PositionClosedEvent(v=1, stream="t", seq=6, magic=1, identifier=1)
    assert "restarted" in str(sequence.accept(TOPIC, event))
