"""A fleet with IPv6 alone: its settings are good; end points, peers and targets are written as they must."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from deploy.fleet import services
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.rendering import render
from deploy.fleet.settings import check
from tests.unit.fleets import EXTRA, make_inventory

SOURCES = {"baseline_ssh_sources": ["fd00:9::200"]}
BARE = re.compile(r"(?<![\[0-9a-f:])fd00:9::[0-9a-f]+:\d{3,5}\b(?!/)")
"""An address with a port behind it and no brackets: the port is a part of the address then."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    inventory = make_inventory(tmp_path_factory.mktemp("ipv6"))
    text = inventory.read_text().replace("10.9.9.0/24", "fd00:9::/64").replace("10.9.9.", "fd00:9::")
    inventory.write_text(text)
    return resolve(inventory, {**EXTRA, **SOURCES})


def documents(fleet: Fleet) -> list[tuple[str, dict[str, Any]]]:
    """(service of host, what is put on the host) of the whole fleet."""
    return [
        (
            f"{service.name} of {host}",
            json.loads(render(f"release/{service.name}.json.j2", fleet.hosts[host])),
        )
        for service in services.SERVICES
        for host in fleet.in_group(service.group)
    ]


def test_its_settings_are_good(fleet: Fleet) -> None:
    assert check(fleet) == []


def test_no_port_is_taken_for_a_part_of_an_address(fleet: Fleet) -> None:
    found = {
        name: BARE.findall(json.dumps(document))
        for name, document in documents(fleet)
        if BARE.search(json.dumps(document))
    }
    assert found == {}


def test_firewall_peers_and_targets(fleet: Fleet) -> None:
    made = dict(documents(fleet))
    firewall = json.dumps(made["baseline of gtw-01"])
    assert "ip6 saddr fd00:9::12 tcp dport { 5555, 5556 }" in firewall
    assert "ip saddr" not in firewall
    unit = made["gateway of gtw-01"]["units"]["mt5crs-gateway.service"]
    assert "IPAddressAllow=fd00:9::12\n" in unit
    targets = made["monitoring of hub-01"]["files"]["prometheus.yml"]["content"]
    assert '"[fd00:9::14]:' in targets
    env = made["reconciler of inf-01"]["files"][".env"]["content"]
    assert "GATEWAY_HOST='fd00:9::14'\n" in env, "whoever connects puts the brackets there"
