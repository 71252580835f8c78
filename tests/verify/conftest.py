"""Which fleet is verified: any inventory, by default the lab's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from testinfra.host import Host

from deploy.fleet.inventory import resolve
from tests.verify.node import Node
from tests.verify.windows_gateway import WindowsGateway

LAB_INVENTORY = "inventory/lab.yml"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--inventory",
        default=os.environ.get("MT5CRS_LAB_INVENTORY", LAB_INVENTORY),
        help="Ansible inventory of the fleet to verify (default: the lab)",
    )


def fleet_of(config: pytest.Config) -> tuple[Node, ...]:
    """Resolve the inventory once per run."""
    known: tuple[Node, ...] | None = config.stash.get(FLEET, None)
    if known is None:
        inventory = Path(str(config.getoption("--inventory")))
        resolved = resolve(inventory)
        known = tuple(
            Node(
                name,
                tuple(group for group in resolved.groups if name in resolved.in_group(group)),
                inventory,
                variables,
            )
            for name, variables in resolved.hosts.items()
        )
        if not known:
            raise pytest.UsageError(f"{inventory} has no hosts; name another with --inventory")
        config.stash[FLEET] = known
    return known


FLEET = pytest.StashKey[tuple[Node, ...]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`node` is every Linux host; `hub`, `inf`, `gateway` those of that group; `unit` is each service.

    `windows` is every Windows gateway.
    """
    if "windows" in metafunc.fixturenames:
        nodes = [node for node in fleet_of(metafunc.config) if node.is_windows and "gateway" in node.groups]
        metafunc.parametrize("windows", nodes, ids=[node.name for node in nodes], indirect=True)
        return
    fleet = tuple(node for node in fleet_of(metafunc.config) if not node.is_windows)
    if "unit" in metafunc.fixturenames:
        pairs = [(node, service) for node in fleet for service in node.services]
        metafunc.parametrize(
            ("node", "unit"), pairs, ids=[f"{node.name}-{service}" for node, service in pairs]
        )
        return
    for fixture in ("node", "hub", "inf", "gateway"):
        if fixture in metafunc.fixturenames:
            nodes = [node for node in fleet if fixture in ("node", *node.groups)]
            metafunc.parametrize(fixture, nodes, ids=[node.name for node in nodes])


@pytest.fixture(scope="session")
def fleet(pytestconfig: pytest.Config) -> tuple[Node, ...]:
    return fleet_of(pytestconfig)


@pytest.fixture(scope="session")
def windows(request: pytest.FixtureRequest) -> WindowsGateway:
    return WindowsGateway(request.param)


@pytest.fixture
def host(node: Node) -> Host:
    return node.connect()
