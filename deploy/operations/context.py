"""The fleet that a pyinfra run is for: read once, before pyinfra connects, and asked by every operation.

Variables stay out of pyinfra's host data on purpose: pyinfra prints that, and they hold secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import PyinfraError

from deploy.fleet.connection import connection_of
from deploy.fleet.inventory import WINDOWS, Fleet, InventoryError, resolve
from deploy.fleet.vault_password import VaultPasswordMissingError

CONNECTOR = "fleet"
"""What pyinfra knows `connector` by."""
not_reached: dict[str, str] = {}
"""Host → why it did not let us in, at the last try."""

_loaded: Fleet | None = None


def load(inventory: Path) -> Fleet:
    """Read the fleet that this process deploys to. PyinfraError when it cannot be read."""
    global _loaded
    try:
        _loaded = resolve(inventory)
    except (InventoryError, VaultPasswordMissingError) as error:
        raise PyinfraError(str(error)) from None
    return _loaded


def is_loaded() -> bool:
    """Whether this process has read the fleet that it deploys to."""
    return _loaded is not None


def fleet() -> Fleet:
    """The fleet that this process deploys to (after pyinfra has read its inventory)."""
    if _loaded is None:
        raise InventoryError("no inventory was read; run pyinfra with inventory/<environment>.py")
    return _loaded


def variables(host: str) -> Mapping[str, Any]:
    """Every variable of a host by its inventory name, as Ansible resolves it."""
    return fleet().hosts[host]


def hosts(of: Fleet) -> list[tuple[str, dict[str, Any]]]:
    """The fleet's Linux hosts, as pyinfra takes them; `windows` beside this has a play deploy the others."""
    windows = of.in_group(WINDOWS)
    linux = [name for name in of.hosts if name not in windows]
    return [(f"@{CONNECTOR}/{name}", connection(of, name)) for name in linux]


def connection(of: Fleet, name: str) -> dict[str, Any]:
    """pyinfra's data of a host; `connector` reaches it by the variables that Ansible reads."""
    return {"_sudo": connection_of(of.hosts[name]).become}
