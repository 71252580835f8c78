"""Who may talk to the gateway changes while the fleet trades: its port goes on with other peers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet.inventory import resolve
from tests.lab.engines import Fleet
from tests.long_runs import OTHER_ENGINE

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


@pytest.mark.parametrize(
    "engine", ["pyinfra", pytest.param("ansible", marks=pytest.mark.slow(reason=OTHER_ENGINE))]
)
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
