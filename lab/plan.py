"""Which hosts a lab has and which addresses they get. Pure: nothing here touches the machine."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lab.errors import LabError

DEFAULT_NAME = "default"
MAX_HOSTS = 40
MIN_HOSTS = 3
DEFAULT_HOSTS = 4
SUPERNET = ipaddress.IPv4Network("10.203.0.0/16")
RELEASES = {"12": "bookworm", "13": "trixie"}
UBUNTU = {"ubuntu22.04": "jammy", "ubuntu24.04": "noble"}
"""For a machine that has Ubuntu's keyring."""
PLAN_FORMAT = 1

Group = Literal["hub", "inf", "gateway"]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


@dataclass(frozen=True)
class Host:
    """One host: its inventory name, its group, its address and its release (of RELEASES or UBUNTU).

    `wine`: it has Wine and a Python for Windows (`gateway_platform: wine`).
    """

    name: str
    group: Group
    address: str
    debian: str
    wine: bool = False


@dataclass(frozen=True)
class Plan:
    """A whole lab, as recorded in `.lab/<name>/lab.json`."""

    name: str
    network: str
    hosts: tuple[Host, ...]

    @property
    def controller_address(self) -> str:
        """The controller's own address on the lab's network (the bridge)."""
        return str(ipaddress.IPv4Network(self.network).network_address + 1)

    def host(self, name: str) -> Host:
        """Return the host called `name`. LabError lists the names there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise LabError(f"lab {self.name} has no host {name!r}; it has {known}")

    def to_json(self) -> str:
        """Text of `lab.json`."""
        return json.dumps({"format": PLAN_FORMAT, **asdict(self)}, indent=2) + "\n"


def plan_from_json(text: str) -> Plan:
    """Read what `Plan.to_json` wrote. LabError if it is something else."""
    try:
        raw: dict[str, Any] = json.loads(text)
        if raw["format"] != PLAN_FORMAT:
            raise LabError(
                f"lab.json has format {raw['format']}, this version reads {PLAN_FORMAT}: "
                "run `down` with the version that wrote it"
            )
        return Plan(raw["name"], raw["network"], tuple(Host(**host) for host in raw["hosts"]))
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"lab.json is damaged ({error}): remove the lab with `down`, then `up`") from error


def check_name(name: str) -> str:
    """Return `name` if it can name a lab (also a network and a directory). LabError otherwise."""
    if not _NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot name a lab: use a lower-case letter, then up to 19 of a-z, 0-9 and '-'"
        )
    return name


def choose_network(name: str, taken: Collection[str]) -> str:
    """Pick the /24 for lab `name` that overlaps none of the networks in `taken`.

    The default lab always has 10.203.0.0/24, since `inventory/lab.yml` states its addresses. Others
    start from a number derived from the name, so that the same name tends to get the same network again.
    """
    used = [ipaddress.IPv4Network(network) for network in taken]
    if name == DEFAULT_NAME:
        candidates = [0]
    else:
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        candidates = [1 + (start + step) % 254 for step in range(254)]
    for number in candidates:
        network = ipaddress.IPv4Network((int(SUPERNET.network_address) + (number << 8), 24))
        if not any(network.overlaps(other) for other in used):
            return str(network)
    if name == DEFAULT_NAME:
        raise LabError(
            "10.203.0.0/24 is in use on this machine and the default lab has its addresses there: "
            "free that network (`ip route`), or boot a lab with another --name"
        )
    raise LabError("no free /24 left in 10.203.0.0/16: remove a lab that is no longer needed with `down`")


def make_plan(
    name: str, network: str, host_count: int = DEFAULT_HOSTS, debian: str = "13", *, wine: bool = False
) -> Plan:
    """Lay out a lab: one hub, one gateway, the rest Inf.
    `debian` is one of RELEASES or UBUNTU, or `mixed` (12 and 13).
    `wine`: the gateway's host has Wine.

    Addresses: hub .11, gateway .31, Inf 1 to 10 at .21 to .30 and from the eleventh on at .41 and up.
    """
    check_name(name)
    if not MIN_HOSTS <= host_count <= MAX_HOSTS:
        raise LabError(
            f"a lab has {MIN_HOSTS} to {MAX_HOSTS} hosts (a hub, a gateway, the rest Inf), not {host_count}"
        )
    if debian not in ("mixed", *RELEASES, *UBUNTU):
        known = ", ".join((*RELEASES, *UBUNTU))
        raise LabError(f"Debian {debian} is not known to the lab: use {known} or mixed")
    if wine and name == DEFAULT_NAME:
        raise LabError(
            "the default lab is that of inventory/lab.yml, whose gateway has no Wine: give this one a --name"
        )
    base = ipaddress.IPv4Network(network).network_address
    slots: list[tuple[str, Group, int]] = [("hub-01", "hub", 11)]
    for number in range(1, host_count - 1):
        slots.append((f"inf-{number:02d}", "inf", number + (20 if number <= 10 else 30)))
    slots.append(("gtw-01", "gateway", 31))
    hosts = []
    for index, (host_name, group, offset) in enumerate(slots):
        release = ("13", "12")[index % 2] if debian == "mixed" else debian
        has_wine = wine and group == "gateway"
        if has_wine and release != "13":
            raise LabError(
                "only Debian 13 has a Wine that terminals take: a gateway with Wine needs --debian 13"
            )
        hosts.append(Host(host_name, group, str(base + offset), release, has_wine))
    return Plan(name, network, tuple(hosts))
