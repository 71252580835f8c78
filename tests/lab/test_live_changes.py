"""Limits, log levels and a threshold change while the fleet trades, and every process stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import resolve
from lab.handle import wait_until
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

HUB, GATEWAY, INF = "hub-01", "gtw-01", "inf-01"
PROMETHEUS = ["systemctl", "show", "-p", "MainPID", "--value", "prometheus.service"]
ASK = """
import json
from pathlib import Path
from mt5crs.client.connection import Peer
from mt5crs.client.errors import RefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.protocol import replies, requests
from mt5crs.settings import envfile

env = envfile.read(Path("/opt/mt5crs/strategy/current/.env"))
magic = int(env["MAGIC_NUMBER"])
ports = {"port": int(env["GATEWAY_PORT"]), "pub_port": int(env["GATEWAY_PUB_PORT"])}
names = {"client_name": env["CLIENT_NAME"], "secret_key": env["CLIENT_SECRET_KEY"]}
peer = Peer(host=env["GATEWAY_HOST"], server_key=env["GATEWAY_PUBLIC_KEY"], **ports, **names)
with GatewayClient(peer) as client:
    terms = dict(symbol="EURUSD", side="BUY", type="MARKET", volume=0.09, price=None, sl=None, tp=None,
                 max_slippage_points=None, filling="IOC", expiration_msc=None)
    try:
        client.call(requests.OrderCheck, replies.CheckResult, magic=magic, **terms)
        refused = ""
    except RefusedError as error:
        refused = str(error)
    books = client.snapshot(magic, history_since_msc=0, whole_account=False)
    print(json.dumps({"refused": refused, "deals": len(books.deals)}))
"""


def ask(fleet: Fleet) -> dict[str, Any]:
    """Why an order of 0.09 lots is refused, and how many deals there have been."""
    told: dict[str, Any] = json.loads(
        fleet.lab.exec(INF, ["/opt/mt5crs/strategy/current/venv/bin/python", "-c", ASK]).stdout
    )
    return told


def too_large(fleet: Fleet) -> bool:
    """Whether it is for its size."""
    return "max_order_volume" in ask(fleet)["refused"]


def in_force(fleet: Fleet, host: str, service: str) -> bool:
    """Whether the service says that it has the settings of its current generation."""
    current = f"/opt/mt5crs/{service}/current"
    command = [f"{current}/venv/bin/mt5crs", "health", service, "--env-file", f"{current}/.env"]
    access = ["--access", "/opt/mt5crs/gateway/access.json"] if service == "gateway" else []
    done = fleet.lab.exec(host, [*command, "--settings", f"{current}/live.env", *access], check=False)
    return done.returncode == 0


def processes(fleet: Fleet) -> dict[Any, str]:
    return {**fleet.pids(), PROMETHEUS[-1]: fleet.lab.exec(HUB, PROMETHEUS).stdout}


@pytest.fixture
def own_limits(fleet: Fleet) -> Iterator[Path]:
    """A file of variables of one Inf host."""
    directory = fleet.inventory.parent / "host_vars"
    directory.mkdir()
    yield directory / f"{INF}.yml"
    shutil.rmtree(directory)


@pytest.mark.slow(reason="the parts are tried in tests/unit/release/test_live.py and by the fault tests")
def test_what_is_live_changes_under_order_flow_and_goes_back_by_tag(fleet: Fleet, own_limits: Path) -> None:
    pids, before, then = processes(fleet), fleet.generations(), ask(fleet)
    assert "max_order_volume" not in then["refused"]
    limits = resolve(fleet.inventory).hosts[INF]["fleet_limits"]
    own_limits.write_text(json.dumps({"fleet_limits": {**limits, "max_order_volume": 0.05}}))
    fleet.override(
        gateway_log_level="DEBUG", reconciler_log_level="WARNING", monitoring_alert_gateway_silence_s=11
    )
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert "  live       gateway on gtw-01: no restart" in ran.output
    assert "  restarts   " not in ran.output
    now = fleet.generations()
    moved = {member for member, generation in now.items() if before[member] != generation}
    inf = {(host, "reconciler") for host in fleet.hosts("reconciler")}
    assert moved == {(GATEWAY, "gateway"), (HUB, "hub"), (HUB, "monitoring"), *inf}
    assert processes(fleet) == pids
    assert all(in_force(fleet, host, service) for host, service in moved if service != "monitoring")
    wait_until(lambda: too_large(fleet), 10, "the limit to hold")
    wait_until(lambda: ask(fleet)["deals"] > then["deals"], 60, "the strategy to trade on")

    back = fleet.playbook("rollback.yml", "--tags", "gateway")
    assert back.status == 0, back.output[-3000:]
    assert fleet.status(GATEWAY)["gateway"]["current"] == before[GATEWAY, "gateway"]
    assert too_large(fleet), "a rollback of code loosens no limit"
    access = fleet.rollback_with_pyinfra("access")
    assert access.status == 0, access.output[-3000:]
    wait_until(lambda: not too_large(fleet), 10, "the limit of before")
    assert processes(fleet) == pids
    assert in_force(fleet, GATEWAY, "gateway")
