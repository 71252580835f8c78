"""Where an operator's key is accepted from, as the inventory has it."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import resolve
from tests.unit.fleets import EXTRA, make_inventory

HUB, CONTROLLERS = "10.9.9.11", ["10.9.9.1", "10.8.0.0/16"]


def addresses(inventory: Path, **more: Any) -> dict[str, list[str]]:
    """Client of the gateway → addresses that its key is bound to."""
    fleet = resolve(inventory, {**EXTRA, "baseline_ssh_sources": CONTROLLERS, **more})
    listed = fleet.hosts["gtw-01"]["gateway_clients"]
    assert all(client["addresses"] for client in listed), "a key that is accepted from everywhere"
    return {client["name"]: client["addresses"] for client in listed}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inventory(tmp_path_factory.mktemp("operators"))


def test_an_operator_works_on_a_controller_or_on_the_hub(inventory: Path) -> None:
    bound = addresses(inventory)
    assert bound["ops"] == [*CONTROLLERS, HUB]
    assert bound["inf-01-strategy"] == ["10.9.9.12"]


def test_an_operator_s_own_addresses_come_first_and_those_of_others_stay(inventory: Path) -> None:
    key = "a" * 64
    own = {"name": "night", "key": key, "permissions": ["observe"], "magics": [], "addresses": ["10.9.9.9"]}
    listed = json.loads(json.dumps([own, {**own, "name": "day", "addresses": CONTROLLERS[:1]}]))
    bound = addresses(inventory, fleet_operators=listed)
    assert (bound["night"], bound["day"]) == (["10.9.9.9"], CONTROLLERS[:1])
    del listed[1]["addresses"]
    assert addresses(inventory, fleet_operators=listed)["day"] == [*CONTROLLERS, HUB]


def test_a_fleet_without_operators_or_hub_has_none(tmp_path: Path) -> None:
    lone = make_inventory(tmp_path, {"inf": ["inf-01"], "gateway": ["gtw-01"]})
    assert set(addresses(lone, fleet_operators=[])) == {"inf-01-reconciler", "inf-01-strategy"}
