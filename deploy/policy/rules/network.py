"""Rules on addresses, ports, and what others can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from deploy.policy.facts import Facts
from deploy.policy.rule import Broken, Rule

_PORTS = {
    "all": ("baseline_ssh_port", "monitoring_node_port"),
    "hub": (
        "hub_http_port",
        "fleet_store_port",
        "monitoring_prometheus_port",
        "monitoring_alertmanager_port",
    ),
    "review": ("review_metrics_port",),
    "inf": ("reconciler_metrics_port", "strategy_metrics_port", "monitoring_hub_watch_port"),
    "gateway": (
        "gateway_port",
        "gateway_pub_port",
        "gateway_metrics_port",
        "gateway_legacy_port",
        "gateway_legacy_pub_port",
    ),
}
"""Group → settings of ports on which its hosts listen."""
_EPHEMERAL = range(32768, 61000)
_WIDEST = {4: 16, 6: 48}
"""Shortest prefix of a network that may reach sshd, by version of IP."""


def _ports(groups: tuple[str, ...], settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for group, names in _PORTS.items():
        if group == "all" or group in groups:
            yield from ((name, settings[name]) for name in names if settings.get(name))


def _used_twice(facts: Facts) -> Iterator[Broken]:
    for host, of in facts.hosts.items():
        seen: dict[int, str] = {}
        for name, port in _ports(of.groups, of.settings):
            if port in seen:
                yield Broken(host, f"{name} and {seen[port]} are both {port}")
            seen.setdefault(port, name)


def _ephemeral(facts: Facts) -> Iterator[Broken]:
    for host, of in facts.hosts.items():
        for name, port in _ports(of.groups, of.settings):
            if port in _EPHEMERAL:
                yield Broken(host, f"{name} is {port}, which Linux gives to outgoing connections")


def _public(facts: Facts) -> Iterator[Broken]:
    for host, of in facts.hosts.items():
        address = _address(of.settings.get("fleet_address"))
        if address is not None and address.is_global:
            yield Broken(host, f"fleet_address {address} is reachable from the whole Internet")


def _wide_sources(facts: Facts) -> Iterator[Broken]:
    for host, of in facts.hosts.items():
        for text in of.settings.get("baseline_ssh_sources") or ():
            try:
                network = ipaddress.ip_network(text, strict=False)
            except ValueError:
                continue  # the form of settings is another rule's
            if network.prefixlen < _WIDEST[network.version]:
                yield Broken(host, f"baseline_ssh_sources has {text}, {network.num_addresses} addresses")


def _plain_door(facts: Facts) -> Iterator[Broken]:
    for host, settings in facts.of("gateway"):
        if not settings.get("gateway_legacy_port") or settings.get("gateway_account_phase") != "live":
            continue
        for name, client in (settings.get("gateway_legacy") or {}).items():
            if "trade" in client.get("permissions", ()):
                yield Broken(
                    host, f"{name} trades a real account over the legacy adapter, without encryption"
                )


_PLAIN = ("hub_plain_readers", "monitoring_prometheus_sources", "monitoring_alertmanager_sources")
"""Who of other hosts is answered by HTTP without TLS on the Hub."""


def _plain_readers(facts: Facts) -> Iterator[Broken]:
    for host, settings in facts.of("hub"):
        for name in _PLAIN:
            for reader in settings.get(name) or ():
                yield Broken(host, f"{name} has {reader}, which is answered without TLS")


def _mighty_clients(facts: Facts) -> Iterator[Broken]:
    for host, of in facts.hosts.items():
        listed = [*(of.settings.get("fleet_operators") or ()), *(of.settings.get("fleet_clients") or ())]
        for client in listed:
            if {"trade", "administer"} <= set(client.get("permissions", ())):
                yield Broken(host, f"client {client.get('name')} may both trade and administer")


def _shared_identity(facts: Facts) -> Iterator[Broken]:
    owners: dict[str, str] = {}
    for host, of in facts.hosts.items():
        for client in of.settings.get("fleet_clients") or ():
            key, name = str(client.get("key")), str(client.get("name"))
            if owners.setdefault(key, name) != name:
                yield Broken(host, f"clients {name} and {owners[key]} have the same public key")


def _address(text: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        return None


RULES = (
    Rule(
        "NET-002",
        "P0",
        "No two services of a host listen on the same port",
        "The second one does not start, and a deployment fails after it has restarted the first.",
        "Give one of the settings another port.",
        _used_twice,
    ),
    Rule(
        "NET-003",
        "P3",
        "Services listen on ports outside of 32768-60999",
        "Linux takes ports of that range for outgoing connections, so one may be in use at a start.",
        "Choose a port below 32768.",
        _ephemeral,
    ),
    Rule(
        "NET-004",
        "P1",
        "Hosts reach each other over private addresses",
        "Gateway, metrics and Prometheus listen on fleet_address; only the firewall would keep the Internet "
        "out.",
        "Put the hosts into a private network or VPN and use its addresses.",
        _public,
    ),
    Rule(
        "NET-005",
        "P1",
        "Only the controllers' networks may reach sshd and the gateways' administration",
        "baseline_ssh_sources opens sshd, administration and the Hub's page.",
        "List the controllers' own addresses; at most a /16 (IPv6: a /48).",
        _wide_sources,
    ),
    Rule(
        "NET-006",
        "P1",
        "Real accounts are traded over encrypted connections only",
        "The legacy adapter knows a client by its address alone; who can send from there can trade.",
        "Move the client to a CURVE key (docs/existing-clients.md), or take `trade` away from it.",
        _plain_door,
    ),
    Rule(
        "NET-007",
        "P2",
        "What the Hub tells other hosts goes by TLS",
        "Without it, whoever is on the way reads positions, money and alerts along, and can change them.",
        "Have that program ask the Hub's service by https:// with its tls.crt (docs/hub.md), or ask on the "
        "Hub itself, then take it out.",
        _plain_readers,
    ),
    Rule(
        "ACC-001",
        "P1",
        "No client may both trade and administer",
        "Whoever has such a key can lift the halt that its own orders caused.",
        "Give people keys with `administer`, programs keys with `trade`.",
        _mighty_clients,
    ),
    Rule(
        "ACC-002",
        "P0",
        "Every client has a key of its own",
        "The gateway tells clients by their keys: with a shared one, rights and counts are another's.",
        "`python -m deploy.keys --inventory … --rotate NAME` makes a new pair for one of them.",
        _shared_identity,
    ),
)
