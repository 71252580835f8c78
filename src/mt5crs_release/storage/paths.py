"""Where things are on a host. Everything hangs below one root so that tests can use a directory."""

from __future__ import annotations

from pathlib import Path

from mt5crs_release.desired.name import instance_of
from mt5crs_release.systems import system

CURRENT = "current"
STANDBY = "standby"
BEFORE = "before"
MANIFEST = "manifest.json"
COMPLETE = ".complete"
"""Marker inside a runtime: written last, so a runtime without it is a leftover."""
TEMPORARY = ".mt5crs-tmp-"
"""Prefix of everything under construction; swept by ``recover`` and before each change."""


def default_root() -> Path:
    """Return the root of a real host."""
    return system.here().root()


class Host:
    """The directories the tool works in, below ``root``.

    One machine may have several instances of the same services. A ``Host`` is the services of one of them:
    of ``instance``, or of none. Runtimes, bundles and the store are the machine's.
    """

    def __init__(self, root: Path, instance: str = "") -> None:
        self.root = root
        self.instance = instance
        self.base = system.here().base(root)
        self.runtimes = self.base / "runtimes"
        self.bundles = self.base / "bundles"
        self.store = self.base / "store"
        """On the Hub: the release store, from which the fleet's hosts fetch bundles."""
        self.units = root / "etc/systemd/system"
        self.volatile_units = root / "run/systemd/system"
        """Units of a standby phase are linked here: no boot finds them."""
        self.allowed_signers = system.here().allowed_signers(root)

    def service(self, name: str) -> ServicePaths:
        """Return the paths of service ``name``."""
        return ServicePaths(self.base / name)

    def services(self) -> list[str]:
        """Return the names of this instance's services that have a state on this host, sorted."""
        return [name for name in self.of_machine() if instance_of(name) == self.instance]

    def of_machine(self) -> list[str]:
        """Return the names of the services of all instances that have a state, sorted."""
        return sorted(path.parent.name for path in self.base.glob("*/state.json"))

    def begun(self) -> list[str]:
        """Return all services a run has worked on, also those whose first generation was not finished."""
        return sorted(path.parent.name for path in self.base.glob("*/lock"))

    def instances(self) -> list[str]:
        """Return the names of the machine's instances, sorted."""
        return sorted({instance_of(name) for name in self.of_machine()} - {""})


class ServicePaths:
    """The paths of one service."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.generations = base / "generations"
        self.current = base / CURRENT
        self.standby = base / STANDBY
        """The second pointer: the generation that is being compared with the running one, else nothing."""
        self.before = base / BEFORE
        """What ran before the generation that waits for its confirmation, where its units are to know."""
        self.access = base / "access.json"
        """The access list in force, which the service reads; only of a service that has one."""
        self.access_changes = base / "access-changes.json"
        """By generation: what its change of the list wanted, and what counts if that comes to nothing."""
        self.journal = base / "journal.jsonl"
        self.state = base / "state.json"
        self.lock = base / "lock"

    def generation(self, name: str) -> Path:
        """Return the directory of generation ``name``."""
        return self.generations / name
