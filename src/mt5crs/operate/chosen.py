"""The fleet that `mt5crs --inventory` names, and what commands ask of its controller.

Inventory, vault and SSH are the controller's; hosts have none of them. So the controller's side is looked up
when it is needed, and nothing here depends on it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import click

import mt5crs
from mt5crs.operate.connection import ConnectionSettings

_CONTROLLER: Final = "deploy.commands.named_fleet"
"""The module whose `NamedFleet` is the `Controller`."""


@dataclass(frozen=True, repr=False)
class Target:
    """A gateway and the way to it. `name`: its host in the inventory; empty for the one of an `.env`."""

    name: str
    connection: ConnectionSettings
    magics: frozenset[int] | None = None
    """Magic numbers of the Inf hosts that trade through it; None: not known."""
    formers: tuple[ConnectionSettings, ...] = ()
    """The same with keys of before a rotation, which count there until it is deployed, and, while the gateway
    moves, at its other address."""


class Controller(Protocol):
    """What a fleet's controller does for commands that also work for a single host."""

    def targets(self) -> list[Target]:
        """Every gateway of the fleet, with the key of whoever acts."""

    def record(self, what: str, told: Mapping[str, Any]) -> str:
        """Add an act to the fleet's audit log; why it is not in there, or nothing."""

    def wrong_env_modes(self) -> tuple[int, list[str]]:
        """How many `.env` files the hosts have, and what is wrong with one or could not be looked at."""

    def accept(self, host: str | None, reason: str, words: Sequence[str]) -> None:
        """Run `mt5crs accept` on an Inf host, then start its reconciler. ClickException."""

    def ask_hub(self, command: Sequence[str]) -> tuple[str, str]:
        """Run a command on the fleet's Hub; what it wrote to each of its outputs. ClickException."""


@dataclass(frozen=True)
class Chosen:
    """What `mt5crs` itself was told: the fleet's inventory, and who acts."""

    inventory: Path
    operator: str | None = None

    def controller(self) -> Controller:
        """The controller's side. UsageError on a host, which has none."""
        on_the_controller()
        return cast("Controller", importlib.import_module(_CONTROLLER).NamedFleet(self))


def on_the_controller() -> None:
    """Make the project's own modules importable. UsageError where they are not, as on a host."""
    root = Path(mt5crs.__file__).resolve().parents[2]
    if not (root / "deploy" / "fleet" / "inventory.py").is_file():
        raise click.UsageError("--inventory works on the controller, with the project's own mt5crs")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
