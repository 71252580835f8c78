"""Who may talk to the gateway changes while the fleet trades: its port goes on with other peers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet.inventory import resolve
from mt5crs.protocol.curve import new_keypair
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SECOND_CONTROLLER = "203.0.113.9"
PORT = 5555


def admitted(fleet: Fleet) -> bool:
    """Whether the firewall and the service both let the second controller in."""
    table = json.loads(fleet.lab.exec("gtw-01", ["nft", "-j", "list", "table", "inet", "mt5crs"]).stdout)
    unit = fleet.lab.exec("gtw-01", ["systemctl", "show", "-p", "IPAddressAllow", "mt5crs-gateway"]).stdout
    return SECOND_CONTROLLER in json.dumps(table) and SECOND_CONTROLLER in unit


def listeners(fleet: Fleet) -> int:
    """How many sockets listen at the gateway's port."""
    shown = fleet.lab.exec("gtw-01", ["ss", "-Hltn", f"sport = :{PORT}"]).stdout
    return len(shown.splitlines())


@pytest.fixture
def own_variables(fleet: Fleet) -> Iterator[Path]:
    """A file of variables of the gateway's host alone, which win over those of its groups."""
    directory = fleet.inventory.parent / "host_vars"
    directory.mkdir()
    yield directory / "gtw-01.yml"
    shutil.rmtree(directory)


@pytest.mark.slow(reason="peers leave and come in every run, in tests/lab/test_decommission.py")
@pytest.mark.parametrize("engine", ["pyinfra", "ansible"])
def test_a_second_controller_is_let_in_and_out_again(fleet: Fleet, own_variables: Path, engine: str) -> None:
    def deploy() -> None:
        ran = fleet.pyinfra() if engine == "pyinfra" else fleet.playbook("site.yml")
        assert ran.status == 0, ran.output[-4000:]
        assert ran.record["outcome"] == "changed"
        assert fleet.running()
        assert listeners(fleet) == 1

    before, gateway = fleet.generations(), fleet.pids()["gtw-01", "gateway"]
    assert not admitted(fleet)
    sources = resolve(fleet.inventory).hosts["gtw-01"]["baseline_ssh_sources"]
    own_variables.write_text(json.dumps({"baseline_ssh_sources": [*sources, SECOND_CONTROLLER]}))
    deploy()
    assert admitted(fleet)
    assert fleet.pids()["gtw-01", "gateway"] != gateway
    own_variables.unlink()
    deploy()
    assert not admitted(fleet)
    assert fleet.generations() == before


def gets_in(fleet: Fleet, secret: str, name: str = "guest") -> bool:
    """Whether the gateway answers a client that proves to have this key."""
    variables = resolve(fleet.inventory).hosts["gtw-01"]
    asked = [sys.executable, "-m", "mt5crs", "status"]
    environment = {
        "GATEWAY_HOST": str(variables["fleet_address"]),
        "GATEWAY_PUBLIC_KEY": str(variables["fleet_gateway_public_keys"]["gtw-01"]),
        "CLIENT_NAME": name,
        "CLIENT_SECRET_KEY": secret,
        "SYNC_TIMEOUT_S": "1",
        "SYNC_RETRY_COUNT": "1",
    }
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or f"the gateway refuses the key of {name}" in done.stderr, done.stderr
    return done.returncode == 0


def test_a_rollback_does_not_let_in_who_was_shut_out(fleet: Fleet, own_variables: Path) -> None:
    public, secret = new_keypair()
    guest = {"name": "guest", "key": public, "permissions": ["observe"], "magics": []}
    operators = resolve(fleet.inventory).hosts["gtw-01"]["fleet_operators"]
    own_variables.write_text(json.dumps({"fleet_operators": [*operators, guest], "gateway_queue_limit": 200}))
    ran = fleet.pyinfra("--limit", "gtw-01")
    assert ran.status == 0, ran.output[-3000:]
    assert gets_in(fleet, secret)

    own_variables.write_text(json.dumps({"gateway_queue_limit": 201}))
    with_guest = fleet.status("gtw-01")["gateway"]
    ran = fleet.playbook("site.yml", "--limit", "gtw-01", "--tags", "gateway")
    assert ran.status == 0, ran.output[-3000:]
    assert not gets_in(fleet, secret)
    serial = fleet.status("gtw-01")["gateway"]["access"]["serial"]
    assert serial > with_guest["access"]["serial"]

    ran = fleet.rollback_with_pyinfra("gateway", "--limit", "gtw-01")
    assert ran.status == 0, ran.output[-3000:]
    now = fleet.status("gtw-01")["gateway"]
    assert (now["current"], now["access"]["serial"]) == (with_guest["current"], serial)
    assert not gets_in(fleet, secret)

    ran = fleet.playbook("rollback.yml", "--tags", "access", "--limit", "gtw-01")
    assert ran.status == 0, ran.output[-3000:]
    assert "gets access: guest (may observe)" in ran.output
    assert fleet.status("gtw-01")["gateway"]["access"]["serial"] == serial + 1
    assert gets_in(fleet, secret)
