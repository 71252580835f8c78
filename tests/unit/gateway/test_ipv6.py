"""A gateway that has only IPv6: it listens, tests itself, and is reached by every kind of client."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mt5crs.client.connection import Peer
from mt5crs.client.gateway import GatewayClient
from mt5crs.client.subscription import Subscription
from mt5crs.probes.health import ask_health
from mt5crs.protocol import replies, requests
from mt5crs.protocol.addresses import canonical, end_point, reached_from_here, with_port
from mt5crs.protocol.events import HEARTBEAT_TOPIC
from mt5crs.reconciler.legacy import LegacySource
from mt5crs.service.held import HeldSockets
from mt5crs.settings.reconciler import ReconcilerSettings
from tests.unit.gateway.running import MAGIC, Running, eventually


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def test_addresses_as_text() -> None:
    assert with_port("fd00::1", 5555) == "[fd00::1]:5555"
    assert end_point("10.0.0.1", 5555) == "tcp://10.0.0.1:5555"
    assert end_point("[fd00::1]", "*") == "tcp://[fd00::1]:*"
    assert [reached_from_here(bound) for bound in ("0.0.0.0", "::", "fd00::1")] == [  # noqa: S104
        "127.0.0.1",
        "::1",
        "fd00::1",
    ]
    spellings = {"FD00:0::1": "fd00::1", "::ffff:10.0.0.1": "10.0.0.1", "10.0.0.1": "10.0.0.1", "?": "?"}
    assert {given: canonical(given) for given in spellings} == spellings


@needs_ipv6
@pytest.mark.skipif(sys.platform == "win32", reason="there is no systemd on Windows")
@pytest.mark.parametrize("bind", ["::1", "::"])
def test_a_gateway_with_ipv6_only(tmp_path: Path, bind: str) -> None:
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(20)
    gateway = Running(
        tmp_path, host="::1", GATEWAY_BIND=bind, METRICS_ADDRESS=bind, NOTIFY_SOCKET=str(tmp_path / "notify")
    )
    gateway.environment |= {"LEGACY_PORT": str(gateway.legacy_port)}
    gateway.legacy = {
        "old": {"address": "0:0:0:0:0:0:0:1", "permissions": ["observe"], "magics": [MAGIC]},
    }
    peer = Peer(
        host="::1",
        port=gateway.port,
        pub_port=gateway.pub_port,
        server_key=gateway.public,
        client_name="watcher",
        secret_key=gateway.secrets["watcher"],
    )
    try:
        gateway.start()
        assert heard.recv(4096).startswith(b"READY=1"), "it has answered a request to itself"
        with GatewayClient(peer) as client:
            client.once(requests.Status, replies.StatusState, timeout_s=5, magic=0)
        subscription = Subscription(peer, [HEARTBEAT_TOPIC])
        eventually(lambda: list(subscription.receive(0.2)))
        subscription.close()
        LegacySource(legacy_settings(gateway), lambda *_: None).ping()
        assert ask_health("::1", gateway.metrics_port)[1]["state"] == "ready"
    finally:
        gateway.close()
        heard.close()


def legacy_settings(gateway: Running) -> ReconcilerSettings:
    known: Any = SimpleNamespace(gateway_host="::1", gateway_port=gateway.legacy_port, sync_timeout_s=5.0)
    return cast(ReconcilerSettings, known)


@needs_ipv6
def test_systemd_holds_an_ipv6_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLD_SOCKETS_FOR", "::1")
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    made = HeldSockets().tcp("::1", port)
    assert made is not None
    assert made.getsockname()[:2] == ("::1", port)
    made.close()
