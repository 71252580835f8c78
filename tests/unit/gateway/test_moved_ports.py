"""While a deployment moves a gateway's ports or address, who has not been told yet is served where it was."""

from __future__ import annotations

import socket

import pytest
import zmq

from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.protocol import requests
from mt5crs.protocol.curve import secure_client
from mt5crs.protocol.replies import Pong
from tests.unit.gateway.running import Caller, Running, cut, eventually


@pytest.fixture
def moved(gateway: Running) -> Running:
    """A gateway that was restarted at other ports, by a change that is not confirmed."""
    was = gateway.port, gateway.pub_port
    gateway.port, gateway.pub_port = free_ports(2)
    gateway.environment |= {
        "GATEWAY_PORT": str(gateway.port),
        "GATEWAY_PUB_PORT": str(gateway.pub_port),
        "FORMERLY_AT": f"requests:{was[0]} events:{was[1]} legacy-requests:0 legacy-events:0",
    }
    gateway.restart()
    return gateway


def at(gateway: Running, port: int, name: str = "watcher") -> Caller:
    """A client that asks at this port."""
    now, gateway.port = gateway.port, port
    try:
        return gateway.client(name)
    finally:
        gateway.port = now


def heartbeats(gateway: Running, port: int) -> bool:
    """Whether an event comes to somebody who subscribes at this port."""
    subscriber = gateway.context.socket(zmq.SUB)
    secure_client(subscriber, gateway.public, gateway.secrets["watcher"])
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    subscriber.connect(f"tcp://127.0.0.1:{port}")
    return bool(subscriber.poll(20_000))


def ports(gateway: Running, kind: str) -> list[int]:
    """Where requests, or events, are served: at the ports of today, then at those of before."""
    formerly = dict(word.split(":") for word in gateway.environment["FORMERLY_AT"].split())
    return [gateway.port if kind == "requests" else gateway.pub_port, int(formerly[kind])]


def test_both_are_served(moved: Running) -> None:
    for port in ports(moved, "requests"):
        assert isinstance(at(moved, port).ask(requests.Ping), Pong), port
    for port in ports(moved, "events"):
        assert heartbeats(moved, port), port


def test_at_another_address_the_former_one_is_served_with_its_figures(gateway: Running) -> None:
    here, there = "127.0.0.1", "127.0.0.2"
    gateway.environment |= {
        "GATEWAY_BIND": there,
        "METRICS_ADDRESS": there,
        "FORMERLY_AT": f"address:{here} metrics-address:{here} metrics:{gateway.metrics_port} "
        f"requests:{gateway.port} events:{gateway.pub_port} legacy-requests:0 legacy-events:0",
    }
    gateway.host = there
    gateway.restart()
    assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)  # of `here`
    assert heartbeats(gateway, gateway.pub_port)
    for address in (here, there):
        for port in (gateway.port, gateway.pub_port, gateway.metrics_port):
            socket.create_connection((address, port), 5).close()
        gateway.host = address
        assert gateway.health()["state"] == "ready"
        eventually(lambda: gateway.metric("mt5crs_gateway_ready") == 1)


def test_an_address_of_before_that_the_host_has_not_any_more_keeps_nothing_from_starting(
    gateway: Running,
) -> None:
    gone = "192.0.2.1"
    gateway.environment["FORMERLY_AT"] = (
        f"address:{gone} metrics-address:{gone} metrics:{gateway.metrics_port} requests:{gateway.port}"
    )
    gateway.restart()
    assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)
    assert sum("former_port.not_served" in line for line in gateway.log().splitlines()) == 2


def test_a_key_that_is_taken_away_is_thrown_out_at_both_and_the_others_come_back(moved: Running) -> None:
    callers = [at(moved, port) for port in ports(moved, "requests")]
    barred = [at(moved, port, "halter") for port in ports(moved, "requests")]
    assert all(isinstance(one.ask(requests.Ping), Pong) for one in (*callers, *barred))
    with cut(*(one.socket for one in (*callers, *barred))):
        del moved.clients["halter"]
        moved.serial = 2
        moved.write_clients()
    assert all(isinstance(one.ask(requests.Ping), Pong) for one in callers)
    for one in barred:
        if one.socket.poll(700, zmq.POLLOUT):
            one.socket.send(b"PING", zmq.NOBLOCK)
        assert not one.socket.poll(700)


def test_ports_that_change_places_are_those_of_today(gateway: Running) -> None:
    gateway.environment["FORMERLY_AT"] = f"requests:{gateway.port} events:{gateway.pub_port}"
    gateway.port, gateway.pub_port = gateway.pub_port, gateway.port
    gateway.environment |= {"GATEWAY_PORT": str(gateway.port), "GATEWAY_PUB_PORT": str(gateway.pub_port)}
    gateway.restart()
    assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)
    assert heartbeats(gateway, gateway.pub_port)


def test_a_port_of_before_that_somebody_else_has_keeps_nothing_from_starting(gateway: Running) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        gateway.environment["FORMERLY_AT"] = f"requests:{gateway.metrics_port} events:{taken}"
        gateway.restart()
        assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)
        assert heartbeats(gateway, gateway.pub_port)
        assert gateway.health()["state"] == "ready"
    (told,) = [line for line in gateway.log().splitlines() if "former_port.not_served" in line]
    assert str(taken) in told


@pytest.mark.parametrize("text", ["nonsense", "requests:", "requests:-1", "requests:x events", ""])
def test_what_is_no_port_is_none(gateway: Running, text: str) -> None:
    gateway.environment["FORMERLY_AT"] = text
    gateway.restart()
    assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)
