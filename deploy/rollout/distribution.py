"""Where the bundles of a roll-out come from: the Hub's release store, or directly the controller.

Decides and words; `deploy.remote.release_store` does it. The same for both engines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deploy.fleet.connection import only_connection
from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.rollout.generation import Bundle
from deploy.rollout.plan import Plan
from deploy.rollout.transfers import megabytes

AT_ONCE = 16
"""Hosts that fetch at the same time."""
_MB = 1000 * 1000
_BLOCK = 1 << 20
_SETTINGS = ("fleet_address", "fleet_store_port", "fleet_store_host_mb_s", "fleet_store_total_mb_s")


@dataclass(frozen=True)
class Store:
    """The Hub with its release store: how it is reached by SSH, and by the hosts of the fleet."""

    name: str
    connection: Mapping[str, Any]
    address: str
    port: int
    host_mb_s: float
    total_mb_s: float

    def pace(self, hosts: int, size: int) -> Pace:
        """How fast each of so many hosts should get so many bytes."""
        share = min(self.host_mb_s, self.total_mb_s / min(hosts, AT_ONCE)) * _MB
        return Pace(least_bytes_s=share / 10, within_s=60 + 3 * size / share)


@dataclass(frozen=True)
class Pace:
    """What a host bears with: bytes a second over a while, seconds for all of it."""

    least_bytes_s: float
    within_s: float


def store_of(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Collection[str]]) -> Store | str:
    """The fleet's release store, or why there is none."""
    hubs = [host for host in groups.get("hub", ()) if host in hosts]
    if not hubs:
        return "the fleet has no Hub"
    of = hosts[hubs[0]]
    address, port, own, total = (of[name] for name in _SETTINGS)
    if not port:
        return "fleet_store_port is 0"
    return Store(hubs[0], only_connection(of), str(address), int(port), float(own), float(total))


def needs_of(plan: Plan, fleet: Fleet) -> dict[str, tuple[Bundle, ...]]:
    """Linux host → the bundles that it lacks. Windows gateways get theirs from their own play."""
    found: dict[str, dict[str, Bundle]] = {}
    for (host, _), work in plan.work.items():
        if host not in fleet.in_group(WINDOWS):
            for bundle in work.todo.upload:
                found.setdefault(host, {})[bundle.remote] = bundle
    return {host: tuple(of.values()) for host, of in found.items()}


def told(plan: Plan, fleet: Fleet) -> list[str]:
    """For people that look at the plan: which bundle goes to whom, from where."""
    hosts_of: dict[Bundle, list[str]] = {}
    for (host, _), work in plan.work.items():
        for bundle in work.todo.upload:
            if host not in hosts_of.setdefault(bundle, []):
                hosts_of[bundle].append(host)
    store, windows, lines = store_of(fleet.hosts, fleet.groups), fleet.in_group(WINDOWS), []
    for bundle, hosts in hosts_of.items():
        what = f"  bundle {bundle.path.name} ({megabytes(bundle.path.stat().st_size)})"
        linux = [host for host in hosts if host not in windows]
        if linux and isinstance(store, Store):
            rate = f"{store.host_mb_s:g} MB/s each, {store.total_mb_s:g} in total"
            lines.append(
                f"{what} once to {store.name}, from there to {', '.join(linux)} ({rate}); directly where "
                "that fails"
            )
        elif linux:
            lines.append(f"{what} directly to {', '.join(linux)}: {store}")
        if direct := [host for host in hosts if host in windows]:
            lines.append(f"{what} directly to {', '.join(direct)}: Windows")
    return lines


@cache
def digest_of(path: Path) -> str:
    """SHA-256 of a file on the controller."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
