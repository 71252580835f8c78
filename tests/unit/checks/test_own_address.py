"""Who asks a service of its own host comes from the address that it asks, not from the interface's first one.

The whole of 127.0.0.0/8 is this host's, and 127.0.0.1 what the kernel takes.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import zmq

from lab.state import PROJECT
from mt5crs.gateway.selftest import SelfTest
from mt5crs.probes.health import ask_health
from mt5crs.protocol.curve import new_keypair

SECOND = "127.0.0.2"
ANSWER = b'HTTP/1.0 200 OK\r\n\r\n{"state": "ready"}'


class Service:
    """Answers each connection with ANSWER; who asked."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self._socket = socket.create_server((SECOND, 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            with connection:
                connection.recv(65536)
                connection.sendall(ANSWER)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def test_the_health_command(service: Service) -> None:
    assert ask_health(SECOND, service.port) == (200, {"state": "ready"})
    assert service.peers == [SECOND]


def test_an_address_of_another_host_is_asked_all_the_same() -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - it depends on the network how it fails
        ask_health("192.0.2.1", 9, 0.05)
    assert refused.value.errno != errno.EADDRNOTAVAIL


def test_the_gateway_that_asks_itself(service: Service) -> None:
    public, _ = new_keypair()
    _, secret = new_keypair()
    context = zmq.Context()
    test = SelfTest(context, SECOND, service.port, public, secret, 1.0, lambda: None)
    assert not test.once(0.3)
    context.destroy(linger=0)
    assert set(service.peers) == {SECOND}


def test_the_health_command_of_monitoring(service: Service) -> None:
    ready = PROJECT / "templates" / "monitoring" / "ready.py"
    asked = [sys.executable, str(ready), f"http://{SECOND}:{service.port}/"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert service.peers == [SECOND]
