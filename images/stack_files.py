"""What compose.yml asks for: keys, access list, addresses and ports of one stack, in `.compose/<name>/`."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import monitoring_files
from images.errors import ImageError
from images.monitoring_files import ALERTMANAGER
from images.services import SERVICES, USER
from mt5crs.protocol.curve import new_keypair, public_of
from mt5crs.settings import envfile
from mt5crs.settings.monitoring import MonitoringSettings

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
    "MT5CRS_HUB_PORT": 8083,
    "MT5CRS_PROMETHEUS_PORT": 9090,
    "MT5CRS_ALERTMANAGER_PORT": 9093,
}
_ADDRESSES = {
    "MT5CRS_SUBNET": ("gateway", "reconciler", "strategy", "hub", "prometheus"),
    "MT5CRS_WATCHING_SUBNET": ("hub", "prometheus", "alertmanager"),
}
"""Who has an address in which network; Alertmanager, which talks to others outside, reaches no gateway."""
_KEYED = tuple(service.name for service in SERVICES if not service.package)
"""Services that speak to the gateway, or are it."""
_SIGNS = ("HUB_ALERTS_TOKEN", "HUB_WEBHOOK_URL", "HUB_WEBHOOK_SECRET")
"""Secrets of the Hub that are read when it signs notifications."""
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
    stack: Stack,
    tag: str,
    network: Callable[[Sequence[str]], str],
    free_ports: Callable[[int], Sequence[int]],
) -> None:
    """Write the files of a stack. Keys, networks, ports and what a person put into it stay.

    network: picks a free /24 beside those given; free_ports: picks ports for a stack that is not the default
    one, which has the usual ones. ImageError if a person's settings cannot be used; OSError when the disk is
    full.
    """
    stack.directory.parent.mkdir(mode=0o700, exist_ok=True)
    for directory in (stack.directory, stack.directory / "secrets"):
        directory.mkdir(mode=0o700, exist_ok=True)
    own, signing = _own_settings(stack)
    public = {name: _key(stack, name) for name in (*_KEYED, OPERATOR)}
    values = envfile.read(stack.settings) if stack.settings.exists() else {}
    _choose_addresses(values, network)
    _choose_ports(values, free_ports, usual=stack.name == DEFAULT_NAME)
    values |= {
        "MT5CRS_PROJECT": stack.name,
        "MT5CRS_STACK": str(stack.directory),
        "MT5CRS_TAG": tag,
        "MT5CRS_GATEWAY_PUBLIC_KEY": public["gateway"],
        "MT5CRS_LIMITS": json.dumps(_LIMITS),
        "MT5CRS_RETENTION_DAYS": str(own.retention_days),
        "MT5CRS_RETENTION_MB": str(own.retention_size_mb),
    }
    access = stack.directory / "access"
    access.mkdir(exist_ok=True)
    access.chmod(0o755)
    _write(access / "access.json", json.dumps(access_list(values, public), indent=1) + "\n", 0o644)
    token = _alerts_token(stack)
    # A file that is not asked for holds no secret of anybody's, but is there: compose.yml names it.
    for name, text in (("url", signing.url), ("secret", signing.secret)):
        _write(stack.directory / f"secrets/hub-webhook-{name}", (text or token) + "\n", 0o600, USER)
    for name in _SIGNS:
        read = f"/run/secrets/{name.lower().replace('_', '-')}"
        values[f"MT5CRS_{name}_FILE"] = read if signing.url else ""
    values["MT5CRS_HUB_FILES"] = _digest(f"{signing.url} {signing.secret}")
    told = monitoring_files.configuration(values, own, token if signing.url else "")
    secret = told.pop(ALERTMANAGER)
    _write(stack.directory / "secrets/alertmanager", secret, 0o600, USER)
    for name, text in told.items():
        path = stack.directory / "monitoring" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        _write(path, text, 0o644)
    # Containers read these when they start: other files make compose replace them.
    values["MT5CRS_PROMETHEUS_FILES"] = _digest("".join(told.values()))
    values["MT5CRS_ALERTMANAGER_FILES"] = _digest(secret)
    _write(stack.operator, _lines(operator_settings(stack, values)), 0o600)
    # Last: a stack with this file is whole.
    _write(stack.settings, _lines(values), 0o600)


def _alerts_token(stack: Stack) -> str:
    """Return what Alertmanager shows the Hub; made on first use."""
    path = stack.directory / "secrets/hub-alerts-token"
    if not path.is_file():
        _write(path, secrets.token_hex(32) + "\n", 0o600, USER)
    return path.read_text().strip()


def _own_settings(stack: Stack) -> tuple[MonitoringSettings, monitoring_files.Signing]:
    """Return a person's settings of monitoring. The files for such settings are made on first use."""
    path = stack.directory / monitoring_files.OWN
    for name in _KEYED:
        own = stack.directory / f"{name}.env"
        if not own.exists():
            _write(own, f"# Your own settings of the {name}, one NAME=value a line; kept.\n", 0o600)
    if not path.exists():
        _write(path, "# Your own settings of monitoring, `monitoring_webhook_url: …`; kept.\n", 0o600)
    return monitoring_files.own_settings(path.read_text(), str(path))


def _choose_addresses(values: dict[str, str], network: Callable[[Sequence[str]], str]) -> None:
    """Give each service its addresses; those that it has, from an older release too, stay."""
    for subnet, names in _ADDRESSES.items():
        if subnet not in values:
            values[subnet] = network([values[each] for each in _ADDRESSES if each in values])
        within = "WATCHING_ADDRESS" if "WATCHING" in subnet else "ADDRESS"
        for number, name in enumerate(names, start=2):
            address = ipaddress.IPv4Network(values[subnet])[number]
            values[f"MT5CRS_{name.upper()}_{within}"] = str(address)
            values[f"MT5CRS_{name.upper()}_{within.replace('ADDRESS', 'MAC')}"] = (
                f"02:00:{address.packed.hex(':')}"
            )


def _choose_ports(values: dict[str, str], free_ports: Callable[[int], Sequence[int]], *, usual: bool) -> None:
    missing = [name for name in _PORTS if name not in values]
    ports = [_PORTS[name] for name in missing] if usual else free_ports(len(missing)) if missing else ()
    values |= dict(zip(missing, map(str, ports), strict=True))


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
            "hub": {
                "key": public["hub"],
                "permissions": ["observe"],
                "magics": [],
                "addresses": [values["MT5CRS_HUB_ADDRESS"]],
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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
