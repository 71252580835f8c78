"""Where a vault's variables are used: in which files, by which settings of which hosts. No host is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.fleet.inventory import Fleet, groups_in
from deploy.fleet.rendering import RenderingError
from deploy.fleet.settings import PARTS, variables_of
from deploy.fleet.snapshot import files_of
from deploy.fleet.vault_password import environment_of
from deploy.rollout.generation import BundleError
from deploy.rollout.impact import impact
from deploy.vaults.store import MARK
from deploy.vaults.text import entries

_NAMED = re.compile(r"\bvault_[A-Za-z0-9_]+")
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


def files_in(inventory: Path) -> dict[str, Path]:
    """Name → file, of all that says what this fleet is to be; no variable is read."""
    groups = groups_in(inventory)
    hosts: dict[str, dict[str, Any]] = {host: {} for host in groups.get("all", ())}
    unread = Fleet(
        inventory, environment_of(inventory), hosts, {name: tuple(of) for name, of in groups.items()}
    )
    return files_of(unread)


def named(inventory: Path) -> frozenset[str]:
    """The variables of the vault that expressions in the fleet's files refer to."""
    found: set[str] = set()
    for path in files_in(inventory).values():
        content = path.read_bytes()
        if not content.startswith(MARK):
            for expression in _EXPRESSION.findall(content.decode("utf-8", errors="replace")):
                found |= set(_NAMED.findall(expression))
    return frozenset(found)


def users(fleet: Fleet, vault: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name of a secret → "host setting" of every declared setting that has its value."""
    by_value: dict[str, list[str]] = {}
    for name, value in entries(vault).items():
        if value not in (None, ""):
            by_value.setdefault(str(value), []).append(name)
    found: dict[str, list[str]] = {name: [] for of in by_value.values() for name in of}
    for host, variables in fleet.hosts.items():
        for setting in _settings_of(fleet, host):
            for value in _texts(variables.get(setting)):
                for name in by_value.get(value, ()):
                    if f"{host} {setting}" not in found[name]:
                        found[name].append(f"{host} {setting}")
    return found


def _settings_of(fleet: Fleet, host: str) -> Iterator[str]:
    for part, groups in PARTS.items():
        if any(host in fleet.in_group(group) for group in groups):
            yield from variables_of(part)
    yield from (name for name in fleet.hosts[host] if name.startswith("ansible_"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield str(value)


@dataclass(frozen=True)
class Consequence:
    """What a deployment of a changed vault would do. unknown: why that is not known."""

    services: tuple[tuple[str, str], ...] = ()
    """(host, service) that it activates anew."""
    hosts: tuple[str, ...] = ()
    """Hosts of which settings change that are in no generation: something may be set up otherwise there."""
    unknown: str = ""
    live: tuple[tuple[str, str], ...] = ()
    """Those of the services that take it over without a restart."""

    @property
    def told(self) -> str:
        """A sentence."""
        if self.unknown:
            return f"what a deployment restarts is not known ({self.unknown})"
        parts = [
            f"{service} on {host}" + (" (without a restart)" if (host, service) in self.live else "")
            for host, service in self.services
        ]
        hosts = f"; and sets up what differs on {', '.join(self.hosts)}" if self.hosts else ""
        return f"a deployment activates anew: {', '.join(parts) or 'nothing'}{hosts}"


def consequence(before: Fleet, after: Fleet) -> Consequence:
    """Compare a fleet with what a changed vault makes of it."""
    try:
        found = impact(before, after)
    except (BundleError, RenderingError) as error:
        return Consequence(unknown=str(error))
    except KeyError as error:  # a deployment says of which host, and what to do
        remedy = "; `make bundle` builds it" if error.args == ("fleet_bundle",) else ""
        return Consequence(unknown=f"{error.args[0]} is not set{remedy}")
    return Consequence(found.services, found.hosts, live=found.live)
