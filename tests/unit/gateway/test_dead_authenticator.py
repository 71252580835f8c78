"""An authenticator that dies: nobody new gets in, and the gateway does not go on without it."""

import io
import threading
from pathlib import Path

import pytest
import zmq

from mt5crs.gateway import service
from mt5crs.gateway.authenticator import Authenticator
from mt5crs.probes.health import ask_health
from mt5crs.protocol import requests
from mt5crs.protocol.curve import Context, Socket, new_keypair, secure_client, secure_server
from mt5crs.protocol.replies import Pong
from mt5crs.service.logs import Log
from mt5crs.settings.gateway import GatewaySettings
from mt5crs.settings.schema import load
from tests.unit.gateway.fatal_handshake import FatalClients
from tests.unit.gateway.running import Running, eventually


def newcomer(context: Context, port: int, public: str, secret: str) -> Socket:
    """A client that asks to be let in; it can be written to once it is."""
    client = context.socket(zmq.DEALER)
    secure_client(client, public, secret)
    client.connect(f"tcp://127.0.0.1:{port}")
    return client


def test_14_dead_authenticator_refuses_everyone() -> None:
    context: Context = zmq.Context()
    public, secret = new_keypair()
    client_secret = new_keypair()[1]
    authenticator = Authenticator(context, lambda *_: "", lambda _: False, lambda *_: None)
    authenticator.start()
    server = context.socket(zmq.ROUTER)
    secure_server(server, secret)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    try:
        assert newcomer(context, port, public, client_secret).poll(60_000, zmq.POLLOUT)
        authenticator.stop()
        assert not authenticator.alive()
        assert not newcomer(context, port, public, client_secret).poll(700, zmq.POLLOUT)
    finally:
        context.destroy(0)


def test_14_a_gateway_whose_authenticator_dies_ends_and_the_next_one_serves(tmp_path: Path) -> None:
    public, secret = new_keypair()
    gateway = Running(tmp_path, FATAL_KEY=public)
    gateway.program = "tests.unit.gateway.fatal_handshake"
    try:
        gateway.start()
        assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)
        fatal = newcomer(gateway.context, gateway.port, gateway.public, secret)
        assert gateway.process is not None
        assert gateway.process.wait(20) == 1
        assert '"event":"PartDiedError","reason":"the authenticator\'s thread died: Fatal()"' in gateway.log()
        fatal.close(0)
        gateway.start()  # as systemd does
        assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)
    finally:
        gateway.close()


def test_14_a_dead_authenticator_is_in_health_and_metrics_and_ends_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway opened in this process: before `run` it does nothing about it, so nothing here races."""
    public, secret = new_keypair()
    setup = Running(tmp_path)
    setup.write_clients()
    monkeypatch.setattr(FatalClients, "fatal", public)
    monkeypatch.setattr(service, "Clients", FatalClients)
    monkeypatch.setattr("threading.excepthook", lambda _: None)  # pytest makes a warning of it
    gateway = service.Gateway(load(GatewaySettings, setup.environment), Log("gateway", stream=io.StringIO()))
    end = threading.Timer(20, gateway.stop)
    try:
        door = (setup.context, setup.port, setup.public)
        assert newcomer(*door, setup.secrets["watcher"]).poll(60_000, zmq.POLLOUT)
        fatal = newcomer(*door, secret)
        eventually(lambda: not gateway.authenticator.alive())
        assert not newcomer(*door, setup.secrets["watcher"]).poll(500, zmq.POLLOUT)
        assert not fatal.poll(0, zmq.POLLOUT)
        status, health = ask_health("127.0.0.1", setup.metrics_port)
        assert (status, health["healthy"], health["state"]) == (503, False, "not_ready")
        assert health["reason"] == "the authenticator's thread died: Fatal()"
        end.start()
        with pytest.raises(service.PartDiedError, match="the authenticator's thread died"):
            gateway.run()
        assert setup.metric("mt5crs_gateway_authenticator_up") == 0
    finally:
        end.cancel()
        gateway.close()
        setup.close()
