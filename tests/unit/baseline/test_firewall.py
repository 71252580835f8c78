"""The ruleset made from the inventory: nft takes it, and it admits the inventory's peers and nobody else."""

import ipaddress
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from deploy.fleet.inventory import Fleet
from deploy.fleet.rendering import render

PROJECT = Path(__file__).resolve().parents[3]
# In a network namespace of its own: the machine's firewall is never touched. Without root: a user namespace.
ISOLATED = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]


def rules(settings: Mapping[str, Any], **other: object) -> str:
    return render("baseline/nftables.conf.j2", {**settings, **other})


def loaded(text: str, tmp_path: Path, times: int = 1) -> list[dict[str, Any]]:
    """What nft lists after loading the text (`times` in a row) into an empty network namespace."""
    path = tmp_path / "nftables.conf"
    path.write_text(text)
    script = f"set -e; for n in $(seq {times}); do nft -f {path}; done; nft --json list ruleset"
    done = subprocess.run(
        [*ISOLATED, "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["nftables"])


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(*texts: str) -> list[Network]:
    """Addresses and networks in the shortest form, to compare: nft merges neighbours to ranges."""
    found = [ipaddress.ip_network(text) for text in texts]
    families = ([one for one in found if one.version == version] for version in (4, 6))
    return [one for family in families for one in ipaddress.collapse_addresses(family)]  # type: ignore[type-var]


def admitted(listing: list[dict[str, Any]]) -> dict[tuple[str, int], list[Network]]:
    """Per protocol and port: who comes in."""
    found: dict[tuple[str, int], list[str]] = {}
    for entry in listing:
        parts = entry.get("rule", {}).get("expr", [])
        if {"accept": None} not in parts:
            continue
        matches = [part["match"] for part in parts if "match" in part]
        source = [m["right"] for m in matches if m["left"].get("payload", {}).get("field") == "saddr"]
        for match in matches:
            if match["left"].get("payload", {}).get("field") != "dport":
                continue
            ports = match["right"]["set"] if isinstance(match["right"], dict) else [match["right"]]
            for port in ports:
                key = (str(match["left"]["payload"]["protocol"]), int(port))
                found.setdefault(key, []).append(_text(source[0]))
    return {key: networks(*texts) for key, texts in found.items()}


def _text(source: Any) -> str:
    return source if isinstance(source, str) else f"{source['prefix']['addr']}/{source['prefix']['len']}"


@pytest.mark.parametrize("host", ["hub-01", "inf-01", "inf-02", "gtw-01"])
def test_default_is_to_drop(fleet: Fleet, tmp_path: Path, host: str) -> None:
    chains = [entry["chain"] for entry in loaded(rules(fleet.hosts[host]), tmp_path) if "chain" in entry]
    found = {chain["hook"]: chain["policy"] for chain in chains}
    assert found.pop("output", "accept") == "accept"  # the Hub's own users
    assert found == {"input": "drop"}


def test_gateway_ports_are_open_to_the_peers_of_the_inventory_only(fleet: Fleet, tmp_path: Path) -> None:
    settings = fleet.hosts["gtw-01"]
    listing = loaded(rules(settings), tmp_path)
    peers = {fleet.hosts[host]["fleet_address"] for group in ("inf", "hub") for host in fleet.in_group(group)}
    for port in (settings["gateway_port"], settings["gateway_pub_port"]):
        assert admitted(listing)["tcp", port] == networks(*peers, *settings["baseline_ssh_sources"])


@pytest.mark.parametrize(
    ("host", "ports"),
    [("gtw-01", {9100, 9101}), ("inf-01", {9100, 9102, 9103}), ("hub-01", {9100})],
)
def test_metrics_are_open_to_the_hub_only(fleet: Fleet, tmp_path: Path, host: str, ports: set[int]) -> None:
    listing = loaded(rules(fleet.hosts[host]), tmp_path)
    hub = networks(fleet.hosts["hub-01"]["fleet_address"])
    to_hub = {port for (protocol, port), who in admitted(listing).items() if who == hub and protocol == "tcp"}
    assert to_hub == ports


def test_peers_of_the_gateway_have_so_many_connections_and_no_more(fleet: Fleet, tmp_path: Path) -> None:
    """One rule for each address, so that each is counted by itself; SSH is bounded by sshd alone."""
    listing = loaded(rules(fleet.hosts["gtw-01"], gateway_connections_per_address=17), tmp_path)
    bounds: dict[str, set[int]] = {}
    for entry in listing:
        rule = entry.get("rule", {})
        counts = [part["ct count"]["val"] for part in rule.get("expr", []) if "ct count" in part]
        bounds.setdefault(rule.get("comment", ""), set()).update(counts or [0])
    assert bounds["gateway requests and events"] <= {17, 8 * 17}
    assert bounds["the Hub scrapes the gateway"] == {32}
    assert bounds["SSH from the controllers"] == {0}


def test_nothing_else_is_open(fleet: Fleet, tmp_path: Path) -> None:
    open_ports = {
        host: set(admitted(loaded(rules(fleet.hosts[host]), tmp_path)))
        for host in ("hub-01", "inf-01", "gtw-01")
    }
    # 546: answers to this host's own DHCPv6 questions, from the link only.
    assert {host: ports - {("udp", 546)} for host, ports in open_ports.items()} == {
        "hub-01": {("tcp", 22), ("tcp", 9100), ("tcp", 8083), ("tcp", 8084), ("udp", 123)},
        "inf-01": {("tcp", 22), ("tcp", 9100), ("tcp", 9102), ("tcp", 9103)},
        "gtw-01": {("tcp", 22), ("tcp", 9100), ("tcp", 9101), ("tcp", 5555), ("tcp", 5556)},
    }


def test_the_release_store_is_open_to_the_fleet_s_networks_if_there_is_one(
    fleet: Fleet, tmp_path: Path
) -> None:
    hub = fleet.hosts["hub-01"]
    listing = loaded(rules(hub, fleet_store_port=8200), tmp_path)
    assert admitted(listing)["tcp", 8200] == networks(*hub["fleet_networks"])
    assert ("tcp", 0) not in admitted(loaded(rules(hub, fleet_store_port=0), tmp_path))
    elsewhere = admitted(loaded(rules(fleet.hosts["inf-01"], fleet_store_port=8200), tmp_path))
    assert ("tcp", 8200) not in elsewhere


@pytest.mark.parametrize(("name", "port"), [("alertmanager", "9093"), ("prometheus", "9090")])
def test_what_knows_no_password_and_no_tls_is_reached_by_those_who_are_listed_alone(
    fleet: Fleet, name: str, port: str
) -> None:
    opened = rules(fleet.hosts["hub-01"], **{f"monitoring_{name}_sources": ["203.0.113.5"]})
    (line,) = (line for line in opened.splitlines() if "saddr" in line and port in line)
    assert line.split()[:3] == ["ip", "saddr", "203.0.113.5"]
    assert "saddr" not in "".join(line for line in rules(fleet.hosts["hub-01"]).splitlines() if port in line)


PLAIN = {
    "old-inf": {"address": "10.203.0.77", "permissions": ["observe"], "magics": []},
    "old-hub": {"address": "2001:db8::77", "permissions": ["observe"], "magics": []},
}


@pytest.mark.parametrize(
    ("port", "pub_port", "clients", "opened"),
    [
        (5655, 5656, PLAIN, {5655, 5656}),
        (5655, 0, PLAIN, {5655}),
        (0, 0, PLAIN, set()),
        (5655, 5656, {}, set()),
    ],
)
def test_ports_of_the_plain_door_are_open_to_its_clients_exactly_when_it_is_on(
    fleet: Fleet, tmp_path: Path, port: int, pub_port: int, clients: dict[str, Any], opened: set[int]
) -> None:
    changed = {
        "gateway_legacy_port": port,
        "gateway_legacy_pub_port": pub_port,
        "gateway_legacy": clients,
    }
    settings = fleet.hosts["gtw-01"]
    before, after = (admitted(loaded(rules(settings, **more), tmp_path)) for more in ({}, changed))
    new = {key: who for key, who in after.items() if key not in before}
    assert {key: who for key, who in after.items() if key in before} == before
    addresses = networks(*(client["address"] for client in clients.values()))
    assert new == {("tcp", each): addresses for each in opened}
    elsewhere = loaded(rules(fleet.hosts["inf-01"], **changed), tmp_path)
    assert not {("tcp", 5655), ("tcp", 5656)} & set(admitted(elsewhere))
    assert windows_rules({**settings, **changed}) == (
        {"ports": sorted(opened), "peers": [client["address"] for client in clients.values()]}
        if opened
        else None
    )


def windows_rules(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The Windows rule for plain clients as the role's task makes it; None: it is absent."""
    role = PROJECT / "roles/baseline"
    variables = yaml.safe_load((role / "vars/windows.yml").read_text())
    (rule,) = [each for each in variables["_baseline_windows_firewall"] if "plain" in each["name"]]
    native = NativeEnvironment()
    item = {key: native.from_string(rule[key]).render(settings) for key in ("ports", "peers")}
    text = (role / "tasks/windows/main.yml").read_text()
    options = {
        key: native.from_string(value).render(item=item)
        for key in ("localport", "remoteip", "state")
        if (value := re.search(rf"^ +{key}: \"(.*item.*)\"$", text, re.MULTILINE)[1])  # type: ignore[index]
    }
    assert options["localport"], "the module would take an empty text for a list of ports"
    return item if options["state"] == "present" else None


def test_addresses_of_both_families_overlap_and_repeat(fleet: Fleet, tmp_path: Path) -> None:
    v4, v6 = ["192.0.2.0/24", "192.0.2.7"], ["2001:db8::/64", "2001:db8::1"]
    listing = loaded(rules(fleet.hosts["gtw-01"], baseline_ssh_sources=[*v4, *v6]), tmp_path)
    assert admitted(listing)["tcp", 22] == networks(v4[0], v6[0])


def test_loading_twice_leaves_one_ruleset(fleet: Fleet, tmp_path: Path) -> None:
    text = rules(fleet.hosts["inf-01"])
    once, twice = loaded(text, tmp_path), loaded(text, tmp_path, times=2)

    def count(listing: list[dict[str, Any]]) -> int:
        return sum("rule" in entry for entry in listing)

    assert count(twice) == count(once) > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users")
def test_on_the_hub_only_root_and_system_users_reach_alertmanager(fleet: Fleet, tmp_path: Path) -> None:
    """A real listener behind the real rules, asked by three users."""
    text = rules(fleet.hosts["hub-01"], monitoring_alertmanager_port=19093)
    (tmp_path / "nftables.conf").write_text(text)
    tmp_path.chmod(0o755)
    asking = tmp_path / "asking.py"
    asking.write_text(
        "import encodings.idna, os, socket\n"
        "listening = socket.create_server(('127.0.0.1', 19093))\n"
        "for user in (0, 110, 1000, 65534):\n"
        "    if not os.fork():\n"
        "        os.setuid(user)\n"
        "        try:\n"
        "            socket.create_connection(('127.0.0.1', 19093), 5)\n"
        "            print(user, flush=True)\n"
        "        except ConnectionRefusedError:\n"
        "            pass\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    script = f"ip link set lo up && nft -f {tmp_path}/nftables.conf && exec python3 {asking}"
    done = subprocess.run(
        [*ISOLATED, "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "110"]
