"""A Hub in this process, beside a real gateway with its simulated broker."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt5crs.hub.service import Hub
from mt5crs.service.logs import Log
from mt5crs.settings.gateway import Limits
from mt5crs.settings.hub import HubSettings
from tests.unit.gateway.running import MAGIC, Running, eventually, running


class Shown:
    """A Hub that runs, and what it answers."""

    def __init__(self, gateway: Running, directory: Path, **settings: Any) -> None:
        made = HubSettings(
            **{
                "gateways": {"gtw-01": "127.0.0.1"},
                "gateway_ports": {"gtw-01": gateway.port},
                "gateway_pub_ports": {"gtw-01": gateway.pub_port},
                "gateway_public_keys": {"gtw-01": gateway.public},
                "client_name": "watcher",
                "client_secret_key": gateway.secrets["watcher"],
                "magic_numbers": {"inf-01": MAGIC},
                "magic_gateways": {"inf-01": "gtw-01"},
                "limits": {
                    "inf-01": Limits(
                        dry_run=False, symbols=["EURUSD"], max_order_volume=5.0, max_position_volume=20.0
                    )
                },
                "http_port": 0,
                "state_dir": str(directory),
                "silence_timeout_s": 1.0,
                "status_interval_s": 1.0,
                "recheck_interval_s": 3600.0,
                "sample_interval_s": 1.0,
                **settings,
            }
        )
        self.log = io.StringIO()
        self.hub = Hub(made, Log("hub", stream=self.log))
        self._thread = threading.Thread(target=self.hub.run)
        self._thread.start()

    def close(self) -> None:
        self.hub.stop()
        self._thread.join(20)
        self.hub.close()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status, and the body: what it holds if it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.hub.endpoint.port, timeout=5)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            kind = answer.headers["Content-Type"]
        finally:
            connection.close()
        return answer.status, json.loads(body) if kind == "application/json" else body.decode()

    def gateway(self) -> dict[str, Any]:
        """The gateway as `/api/fleet` has it."""
        status, fleet = self.get("/api/fleet")
        assert status == 200, fleet
        found: dict[str, Any] = fleet["gateways"][0]
        return found

    def listening(self) -> dict[str, Any]:
        """The gateway, once it is listened to and its status is known."""

        def known() -> dict[str, Any] | None:
            of = self.gateway()
            return of if of["current"] and of["version"] and of["state"] == "ready" else None

        return eventually(known)

    def trades(self, query: str = "") -> list[dict[str, Any]]:
        status, told = self.get(f"/api/trades{query}")
        assert status == 200, told
        found: list[dict[str, Any]] = told["trades"]
        return found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("gateway")) as started:
        yield started


@pytest.fixture
def hub(gateway: Running, tmp_path: Path) -> Iterator[Shown]:
    shown = Shown(gateway, tmp_path)
    try:
        yield shown
    finally:
        shown.close()
