"""What describes a lab's fleet, edited as people edit it: inventory, variables of hosts, keys and vault."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from deploy import keys
from deploy.fleet.inventory import resolve
from lab import ssh
from lab.plan import Host, Plan
from lab.state import LabDirectory


@dataclass(frozen=True)
class Saved:
    """A description as it was at a time."""

    plan: Plan
    everywhere: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]]
    files: Mapping[Path, bytes]


class Description:
    """The hosts that the inventory names, and settings that win over those of the project's group_vars.

    Nothing is written before `write`. `plan`: the hosts that belong to the fleet, which may be fewer than the
    lab has, and have other addresses.
    """

    def __init__(self, directory: LabDirectory, plan: Plan, settings: Mapping[str, Any]) -> None:
        self.directory = directory
        self.plan = plan
        self._everywhere: dict[str, Any] = dict(settings)
        self._own: dict[str, dict[str, Any]] = {}
        self._written: set[Path] = set()

    @property
    def inventory(self) -> Path:
        """The inventory's file."""
        return self.directory.inventory

    def add(self, host: Host) -> None:
        """A host joins the fleet, after those of its group; it gets keys."""
        hosts = list(self.plan.hosts)
        after = max(at for at, other in enumerate(hosts) if other.group == host.group)
        hosts.insert(after + 1, host)
        self.plan = replace(self.plan, hosts=tuple(hosts))
        self.write()
        keys.make(self.inventory)

    def remove(self, name: str) -> None:
        """A host leaves the inventory; its keys stay where they are."""
        self.plan = replace(self.plan, hosts=tuple(host for host in self.plan.hosts if host.name != name))

    def move(self, name: str, address: str) -> None:
        """A host has another address."""
        hosts = (replace(h, address=address) if h.name == name else h for h in self.plan.hosts)
        self.plan = replace(self.plan, hosts=tuple(hosts))

    def set(self, **settings: Any) -> None:
        """Variables of every host."""
        self._everywhere |= settings

    def set_on(self, name: str, **settings: Any) -> None:
        """Variables of one host."""
        self._own[name] = {**self._own.get(name, {}), **settings}

    def rotate(self, *names: str) -> None:
        """These key pairs are replaced by new ones (`python -m deploy.keys --rotate`)."""
        keys.make(self.inventory, rotate=names)

    def value(self, host: str, name: str) -> Any:
        """A variable of a host, as a deployment would read it."""
        return self.values([host], name)[host]

    def values(self, hosts: Iterable[str], name: str) -> dict[str, Any]:
        """Host → a variable of it, as a deployment would read it."""
        resolved = resolve(self.inventory).hosts
        return {host: resolved[host][name] for host in hosts}

    def write(self) -> None:
        """Put inventory, variables and known_hosts in place."""
        tree = yaml.safe_load(self.inventory.read_text())
        for group, entry in tree["lab"]["children"].items():
            entry["hosts"] = {
                h.name: {"ansible_host": h.address} for h in self.plan.hosts if h.group == group
            }
        self.inventory.write_text("---\n" + yaml.safe_dump(tree, sort_keys=False))
        ssh.write_keys(self.directory, self.plan)
        self._forget()
        for host in self.plan.hosts:
            values = {**self._everywhere, **self._own.get(host.name, {})}
            if values:
                path = self.inventory.parent / "host_vars" / f"{host.name}.yml"
                path.parent.mkdir(exist_ok=True)
                self._written.add(path)
                path.write_text("---\n" + yaml.safe_dump(values))

    def saved(self) -> Saved:
        """As it is now, with the files that `write` and `rotate` change."""
        directory = keys.directory_of(self.inventory)
        paths = (self.inventory, self.directory.known_hosts, directory / "vault.yml", directory / "keys.yml")
        return Saved(
            self.plan,
            copy.deepcopy(self._everywhere),
            copy.deepcopy(self._own),
            {path: path.read_bytes() for path in paths},
        )

    def restore(self, saved: Saved) -> None:
        """As it was; written."""
        self.plan = saved.plan
        self._everywhere = dict(copy.deepcopy(saved.everywhere))
        self._own = {name: dict(values) for name, values in copy.deepcopy(saved.own).items()}
        self.write()
        for path, content in saved.files.items():
            path.write_bytes(content)

    def _forget(self) -> None:
        """Leave no variables of hosts that this description has written."""
        for path in self._written:
            path.unlink()
        self._written.clear()
        beside = self.inventory.parent / "host_vars"
        if beside.is_dir() and not any(beside.iterdir()):
            beside.rmdir()
