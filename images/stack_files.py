"""What compose.yml asks for: keys, access list, addresses and ports of one stack, in `.compose/<name>/`."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.errors import ImageError
from images.services import SERVICES, USER
from mt5crs.protocol.curve import new_keypair, public_of
from mt5crs.settings import envfile

DEFAULT_NAME = "mt5crs-stack"
MAGIC = 202401
OPERATOR = "ops"
_NAME = re.compile(r"mt5crs-[a-z0-9][a-z0-9-]{0,30}\Z")
_PORTS = {
    "MT5CRS_PORT": 5555,
    "MT5CRS_PUB_PORT": 5556,
    "MT5CRS_GATEWAY_METRICS_PORT": 9101,
    "MT5CRS_RECONCILER_METRICS_PORT": 9102,
    "MT5CRS_STRATEGY_METRICS_PORT": 9103,
}
_LIMITS = {
    "dry_run": False,
    "symbols": ["EURUSD"],
    "max_order_volume": 0.1,
    "max_position_volume": 1.0,
    "max_daily_loss": 500.0,
    "max_slippage_points": 50,
    "max_consecutive_failures": 5,
}
"""As in a lab: the broker is a simulated one."""


@dataclass(frozen=True)
class Stack:
    """One stack: its name and where its files are."""

    name: str
    directory: Path

    @classmethod
    def of(cls, project: Path, name: str) -> Stack:
        """Return the stack of that name. ImageError when it is none that podman would take."""
        if not _NAME.match(name):
            raise ImageError(f"{name!r} is no name of a stack: it begins with mt5crs-, then a-z, 0-9 and -")
        return cls(name, project / ".compose" / name)

    @property
    def settings(self) -> Path:
        """What compose.yml is filled in with."""
        return self.directory / "stack.env"

    @property
    def operator(self) -> Path:
        """Settings for commands of an operator on this machine."""
        return self.directory / "ops.env"

    def values(self) -> dict[str, str]:
        """Return the settings. ImageError if the stack was never prepared, or its file was spoiled."""
        try:
            return envfile.read(self.settings)
        except (OSError, ValueError) as error:
            raise ImageError(
                f"the stack {self.name} was never started ({error}): run `make compose-up`"
            ) from None

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.name}-{service}"


def prepare(
    stack: Stack, tag: str, network: Callable[[], str], free_ports: Callable[[int], Sequence[int]]
) -> None:
    """Write the files of a stack. Keys, network, ports and what a person put into `<service>.env` stay.

    network: picks a free /24; free_ports: picks ports for a stack that is not the default one, which has the
    usual ones. OSError when the disk is full.
    """
    stack.directory.parent.mkdir(mode=0o700, exist_ok=True)
    for directory in (stack.directory, stack.directory / "secrets"):
        directory.mkdir(mode=0o700, exist_ok=True)
    public = {name: _key(stack, name) for name in (*(each.name for each in SERVICES), OPERATOR)}
    values = envfile.read(stack.settings) if stack.settings.exists() else {}
    if not values:
        subnet = ipaddress.IPv4Network(network())
        values["MT5CRS_SUBNET"] = str(subnet)
        for number, each in enumerate(SERVICES, start=2):
            values[f"MT5CRS_{each.name.upper()}_ADDRESS"] = str(subnet[number])
        usual = stack.name == DEFAULT_NAME
        ports = tuple(_PORTS.values()) if usual else free_ports(len(_PORTS))
        values |= dict(zip(_PORTS, map(str, ports), strict=True))
    values |= {
        "MT5CRS_PROJECT": stack.name,
        "MT5CRS_STACK": str(stack.directory),
        "MT5CRS_TAG": tag,
        "MT5CRS_GATEWAY_PUBLIC_KEY": public["gateway"],
    }
    access = stack.directory / "access"
    access.mkdir(exist_ok=True)
    access.chmod(0o755)
    _write(access / "access.json", json.dumps(access_list(values, public), indent=1) + "\n", 0o644)
    for each in SERVICES:
        own = stack.directory / f"{each.name}.env"
        if not own.exists():
            _write(own, f"# Your own settings of the {each.name}, one NAME=value a line; kept.\n", 0o600)
    _write(stack.operator, _lines(operator_settings(stack, values)), 0o600)
    # Last: a stack with this file is whole.
    _write(stack.settings, _lines(values), 0o600)


def access_list(values: dict[str, str], public: dict[str, str]) -> dict[str, Any]:
    """Return who may connect to the gateway: each service from its own address, and an operator."""
    return {
        "clients": {
            "reconciler": {
                "key": public["reconciler"],
                "permissions": ["observe"],
                "magics": [MAGIC],
                "addresses": [values["MT5CRS_RECONCILER_ADDRESS"]],
            },
            "strategy": {
                "key": public["strategy"],
                "permissions": ["trade"],
                "magics": [MAGIC],
                "addresses": [values["MT5CRS_STRATEGY_ADDRESS"]],
            },
            OPERATOR: {"key": public[OPERATOR], "permissions": ["observe", "administer"], "magics": []},
        },
        "limits": {str(MAGIC): _LIMITS},
        "legacy": {},
    }


def operator_settings(stack: Stack, values: dict[str, str]) -> dict[str, str]:
    """Return what `mt5crs` needs on this machine to speak to the gateway as an operator."""
    return {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": values["MT5CRS_PORT"],
        "GATEWAY_PUB_PORT": values["MT5CRS_PUB_PORT"],
        "GATEWAY_PUBLIC_KEY": values["MT5CRS_GATEWAY_PUBLIC_KEY"],
        "CLIENT_NAME": OPERATOR,
        "CLIENT_SECRET_KEY_FILE": str(stack.directory / "secrets" / OPERATOR),
        "MAGIC_NUMBER": str(MAGIC),
    }


def _key(stack: Stack, name: str) -> str:
    """Return the public key of `name`; the secret one is made on first use."""
    path = stack.directory / "secrets" / name
    if path.is_file():
        return public_of(path.read_text().strip())
    public, secret = new_keypair()
    _write(path, secret + "\n", 0o600, 0 if name == OPERATOR else USER)
    return public


def _lines(values: dict[str, str]) -> str:
    return "# Written by `python -m images`; changes here are lost.\n" + "".join(
        f"{name}='{value}'\n" for name, value in sorted(values.items())
    )


def _write(path: Path, text: str, mode: int, owner: int = 0) -> None:
    """Replace a file in one step, never readable by more than `mode` allows."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), owner, owner)
    temporary.replace(path)
