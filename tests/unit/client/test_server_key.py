"""A gateway gets another key: its clients take both until the new one has let them in."""

from __future__ import annotations

import time

import pytest

from mt5crs.client.connection import Peer
from mt5crs.client.errors import GatewayError, KeyRefusedError
from mt5crs.client.gateway import GatewayClient, Patience
from mt5crs.client.server_key import ServerKey
from mt5crs.client.subscription import Subscription
from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.protocol.curve import new_keypair
from mt5crs.protocol.events import HEARTBEAT_TOPIC, Heartbeat
from mt5crs.protocol.replies import Pong
from mt5crs.protocol.requests import Ping, Request
from tests.unit.client.peers import ScriptedGateway

OLD, NEW, OTHER = new_keypair(), new_keypair(), new_keypair()
BEAT = Heartbeat(v=1, stream="s", seq=1, time_msc=1, interval_ms=100, state="ready", seqs={})
PATIENCE = Patience(2.0, 3, 0.05)


def pong(request: Request) -> Pong:
    return Pong(v=1, id=request.id, time_msc=1, stream="s")


def peer_of(ports: tuple[int, int], *, former: str = OLD[0]) -> Peer:
    return Peer(
        host="127.0.0.1",
        port=ports[0],
        pub_port=ports[1],
        server_key=NEW[0],
        client_name="c",
        secret_key=new_keypair()[1],
        changing=ServerKey(NEW[0], former) if former else None,
    )


def ask(client: GatewayClient) -> str:
    return client.call(Ping, Pong, magic=1).stream


def test_the_former_key_ends_with_the_first_success_of_the_new_one() -> None:
    key = ServerKey("new", "old")
    assert (key.now, key.two) == ("new", True)
    key.refused("new")
    assert key.now == "old"
    key.refused("new")  # another connection of the process finds out as well
    assert key.now == "old"
    key.worked("old")
    key.refused("old")
    assert (key.now, key.two) == ("new", True)
    key.worked("new")
    key.refused("new")
    assert (key.now, key.two) == ("new", False)


@pytest.mark.parametrize("former", ["", "new"])
def test_a_key_without_another_is_tried_alone(former: str) -> None:
    key = ServerKey("new", former)
    key.refused("new")
    assert (key.now, key.two) == ("new", False)


def test_requests_go_on_while_the_gateway_changes_its_key() -> None:
    ports = tuple(free_ports(2))
    with GatewayClient(peer_of(ports), PATIENCE) as client:
        with ScriptedGateway(pong, ports, OLD):
            assert ask(client) == "s"
            assert ask(client) == "s"
        with ScriptedGateway(pong, ports, NEW):
            assert ask(client) == "s"
        # Whoever has the former key may be anybody now.
        with ScriptedGateway(pong, ports, OLD), pytest.raises(KeyRefusedError, match="GATEWAY_PUBLIC_KEY"):
            ask(client)


@pytest.mark.parametrize("two", [True, False])
def test_a_gateway_with_neither_key_is_refused_at_once(two: bool) -> None:
    ports = tuple(free_ports(2))
    peer = peer_of(ports, former=OLD[0] if two else "")
    with ScriptedGateway(pong, ports, OTHER), GatewayClient(peer, PATIENCE) as client:
        with pytest.raises(KeyRefusedError, match="GATEWAY_PUBLIC_KEY"):
            ask(client)
        assert client.last_attempts == 1


def heard(subscription: Subscription, gateway: ScriptedGateway) -> bool:
    """Whether an event arrives, which is published again and again: a subscription takes its time."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        gateway.publish(HEARTBEAT_TOPIC, BEAT)
        if subscription.receive(0.05):
            return True
    return False


def test_events_go_on_while_the_gateway_changes_its_key() -> None:
    ports = tuple(free_ports(2))
    peer = peer_of(ports)
    subscription = Subscription(peer, [HEARTBEAT_TOPIC])
    with ScriptedGateway(pong, ports, OLD) as gateway:
        assert heard(subscription, gateway)
    with ScriptedGateway(pong, ports, NEW) as gateway:
        assert heard(subscription, gateway)
    assert not peer.server.two
    subscription.close()
    subscription.close()


def test_events_follow_the_key_that_requests_have_found() -> None:
    ports = tuple(free_ports(2))
    peer = peer_of(ports)
    with ScriptedGateway(pong, ports, OLD) as gateway, GatewayClient(peer, PATIENCE) as client:
        assert ask(client) == "s"
        subscription = Subscription(peer, [HEARTBEAT_TOPIC])
        assert heard(subscription, gateway)
        subscription.close()


def test_a_gateway_with_neither_key_keeps_no_core_busy() -> None:
    ports = tuple(free_ports(2))
    subscription = Subscription(peer_of(ports), [HEARTBEAT_TOPIC])
    with ScriptedGateway(pong, ports, OTHER):
        began = time.process_time()
        for _ in range(10):
            subscription.receive(0.1)
        assert time.process_time() - began < 0.5
    subscription.close()


def test_a_subscription_that_nobody_closed_blocks_no_other() -> None:
    for _ in range(5):
        ports = tuple(free_ports(2))
        with ScriptedGateway(pong, ports, OTHER):
            Subscription(peer_of(ports), [HEARTBEAT_TOPIC]).receive(0.05)
    ports = tuple(free_ports(2))
    with ScriptedGateway(pong, ports, NEW), GatewayClient(peer_of(ports), PATIENCE) as client:
        try:
            assert ask(client) == "s"
        except GatewayError as error:  # pragma: no cover -- says which
            pytest.fail(str(error))
