"""Ports are open to the listed peers alone, tried from every other host of the fleet."""

import json
from functools import cache

from tests.verify.node import Node

# Tries every address:port given, all at once, and prints those that accept a connection.
PROBE = """
import asyncio, json, sys
async def accepts(address, port):
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 3)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True
async def main():
    wanted = [item.rsplit(":", 1) for item in sys.argv[1:]]
    answers = await asyncio.gather(*(accepts(address, int(port)) for address, port in wanted))
    print(json.dumps([item for item, answer in zip(sys.argv[1:], answers) if answer]))
asyncio.run(main())
"""


def expected_peers(target: Node) -> dict[int, tuple[str, ...]]:
    """Port → groups that may reach it on this host."""
    variable = target.variables
    peers: dict[int, tuple[str, ...]] = {}
    if not target.is_windows:
        peers[variable["monitoring_node_port"]] = ("hub",)
    if target.name in (variable.get("monitoring_hub_watchers") or ()):
        peers[variable["monitoring_hub_watch_port"]] = ("hub",)
    for service in set(target.services) - {"hub"}:
        peers[variable[f"{service}_metrics_port"]] = ("hub",)
    if "gateway" in target.groups:
        peers[variable["gateway_port"]] = ("inf", "hub")
        peers[variable["gateway_pub_port"]] = ("inf", "hub")
        for port in plain_ports(target):
            peers[port] = ()
    if "hub" in target.groups:
        peers[variable["hub_http_port"]] = ()
        peers[variable["monitoring_prometheus_port"]] = ()
        peers[variable["monitoring_alertmanager_port"]] = ()
    return peers


def plain_ports(target: Node) -> tuple[int, ...]:
    """Ports of a gateway's adapter for existing plain clients, if it is on."""
    if "gateway" not in target.groups or not target.variables["gateway_legacy_port"]:
        return ()
    ports = (target.variables["gateway_legacy_port"], target.variables["gateway_legacy_pub_port"])
    return tuple(port for port in ports if port)


def is_plain_client(node: Node, target: Node) -> bool:
    """Whether a host of the fleet is also listed as an existing client of a gateway."""
    listed = target.variables.get("gateway_legacy", {}).values()
    return node.address in [client["address"] for client in listed]


@cache
def reachable_from(source: Node, targets: tuple[str, ...]) -> frozenset[str]:
    answer = source.run("python3", "-c", PROBE, *targets)
    assert answer.returncode == 0, answer.stderr
    return frozenset(json.loads(answer.stdout))


def elsewhere(node: Node, fleet: tuple[Node, ...]) -> list[Node]:
    """The hosts that are not on its machine, which lets everything through to itself."""
    return [other for other in fleet if other.address != node.address]


def test_open_to_the_listed_peers_alone(node: Node, fleet: tuple[Node, ...]) -> None:
    others = [other for other in elsewhere(node, fleet) if other.enforces_firewall]
    targets = tuple(f"{other.address}:{port}" for other in others for port in expected_peers(other))
    allowed = {
        f"{other.address}:{port}"
        for other in others
        for port, groups in expected_peers(other).items()
        if set(groups) & set(node.groups) or (port in plain_ports(other) and is_plain_client(node, other))
    }
    assert reachable_from(node, targets) == allowed


def test_ssh_is_the_only_other_open_port(node: Node, fleet: tuple[Node, ...]) -> None:
    there = [one for one in fleet if one.address == node.address]
    ours = {port for one in there for port in expected_peers(one)} | {
        int(node.variables["baseline_ssh_port"])
    }
    listening = node.run("ss", "-Hltn").stdout.split("\n")
    ports = {int(line.split()[3].rsplit(":", 1)[1]) for line in listening if line}
    foreign = sorted(ports - ours)
    other = next(other for other in elsewhere(node, fleet) if not other.is_windows)
    assert reachable_from(other, tuple(f"{node.address}:{port}" for port in foreign)) == frozenset()
