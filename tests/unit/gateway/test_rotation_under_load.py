"""A client's key is replaced while the gateway is asked all the time: no request is lost.

Once the old key ends every connection is cut, and clients ask again what has no answer. With a whole fleet:
tests/lab/test_rotation_under_load.py.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from mt5crs.client.connection import Peer
from mt5crs.client.errors import KeyRefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.protocol import requests
from mt5crs.protocol.replies import Pong
from tests.unit.gateway.running import MAGIC, OTHER_MAGIC, Running, eventually, running

ROTATED = "strategy"
RATE = 250
"""Requests a second of each client: all together 1000. At more than 500 a client is told to wait a second."""
MOST_S = 0.7
"""For the longest answer: connections are cut and made anew meanwhile."""
PER_STAGE = 300
"""Answers before, between and after the steps of the rotation."""


class Load(threading.Thread):
    """One client that asks at its rate; with a key that is refused it takes its new one."""

    def __init__(self, gateway: Running, name: str, magic: int) -> None:
        super().__init__(daemon=True)
        self._gateway, self._client_name, self._magic = gateway, name, magic
        self.stop = threading.Event()
        self.times: list[float] = []
        self.refused = 0
        self.error: Exception | None = None

    def _client(self) -> GatewayClient:
        of = self._gateway
        secret = of.secrets[self._client_name]
        ports = {"port": of.port, "pub_port": of.pub_port}
        name = self._client_name
        peer = Peer(host=of.host, server_key=of.public, client_name=name, secret_key=secret, **ports)
        return GatewayClient(peer)

    def run(self) -> None:
        """Until it is told to stop, or a request has no answer."""
        client = self._client()
        due = time.monotonic()
        try:
            while not self.stop.wait(max(0.0, due - time.monotonic())):
                due = max(due + 1 / RATE, time.monotonic() - 0.1)
                began = time.monotonic()
                try:
                    client.call(requests.Ping, Pong, magic=self._magic)
                except KeyRefusedError:
                    client.close()
                    client, self.refused = self._client(), self.refused + 1
                    client.call(requests.Ping, Pong, magic=self._magic)
                self.times.append(time.monotonic() - began)
        except Exception as error:
            self.error = error
        finally:
            client.close()


def test_no_request_is_lost_while_a_clients_key_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        loads = [
            Load(gateway, ROTATED, MAGIC),
            Load(gateway, "other", OTHER_MAGIC),
            Load(gateway, "watcher", MAGIC),
            Load(gateway, "ops", MAGIC),
        ]

        def go_on() -> None:
            then = [len(load.times) for load in loads]
            eventually(
                lambda: all(
                    load.error or len(load.times) > n + PER_STAGE // len(loads)
                    for load, n in zip(loads, then, strict=True)
                )
            )

        for load in loads:
            load.start()
        begun = time.monotonic()
        go_on()
        former, of = gateway.clients[ROTATED]["key"], gateway.clients[ROTATED]
        gateway.allow(ROTATED, of["permissions"], of["magics"])
        gateway.clients[ROTATED]["former_key"] = former
        gateway.serial = 2
        gateway.write_clients()
        eventually(lambda: '"serial":2' in gateway.log())
        go_on()
        assert [load.refused for load in loads] == [0, 0, 0, 0], "both keys count"
        del gateway.clients[ROTATED]["former_key"]
        gateway.serial = 3
        gateway.write_clients()
        eventually(lambda: '"revoked":1' in gateway.log())
        go_on()
        took = time.monotonic() - begun
        for load in loads:
            load.stop.set()
            load.join(20)
        times = [one for load in loads for one in load.times]
        print(f"{len(times) / took:.0f} a second, longest {1000 * max(times):.0f} ms")
        assert max(times) < MOST_S
        assert [load.error for load in loads] == [None] * len(loads)
        assert [load.refused for load in loads] == [1, 0, 0, 0], "the old key is refused, and no other"
