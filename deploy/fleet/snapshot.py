"""The configuration of a fleet as the audit log keeps it: files as they are, secrets by reference.

A file that holds a secret is kept as a keyed digest alone, and so is every setting's value. The key follows
from the vault's password, so that who reads the log cannot try values out.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.fleet.guarded import ACCESS
from deploy.fleet.inventory import Fleet, is_constant
from deploy.fleet.layers import is_secret
from deploy.fleet.settings import PARTS, variables_of
from deploy.fleet.vault_password import PROJECT, VaultPasswordMissingError, environment_of, read_password
from mt5crs_release.records.configuration_changes import ALL

BESIDE = "inventory/"
"""Begins the names of the inventory and of the files beside it, wherever they lie."""
DEFAULTS = "group_vars/all/defaults.yml"
"""Generated from the schema: it belongs to the code."""
_VAULT = b"$ANSIBLE_VAULT"
_OF_ANSIBLE = ("ansible_host", "ansible_port", "ansible_user")
_BY_NAME = ("fleet_client_public_keys", "fleet_gateway_public_keys")
"""Mappings whose entries are told of one by one, as those of the vault are."""
_ROUNDS = 200_000
_SUFFIXES = ("", ".yml", ".yaml", ".json")
_SHORT = 32


def snapshot_of(fleet: Fleet, given: Collection[str] = ()) -> dict[str, Any]:
    """Plain values for the log. OSError when a file cannot be read.

    given: names of what was set on the command line, which is in no file
    """
    key = key_of(fleet.inventory)
    paths = files_of(fleet)
    settings: dict[str, dict[str, list[str]]] = {}
    secret = set()
    for host, variables in fleet.hosts.items():
        for name, value in _settings(variables):
            if is_secret(name.partition(".")[0]):
                secret.add(name)
                if not key:
                    continue  # a digest without a key would tell
            told = json.dumps(value, sort_keys=True, default=str)
            settings.setdefault(name, {}).setdefault(digest(key, name, told), []).append(host)
    every = list(fleet.hosts)
    return {
        "environment": fleet.environment,
        "key": digest(key, "key", "")[:8] if key else "",
        "hosts": every,
        "files": {name: file_of(key, name, path) for name, path in sorted(paths.items())},
        "settings": {
            name: {told: ALL if on == every else on for told, on in of.items()}
            for name, of in sorted(settings.items())
        },
        "secret": sorted(secret),
        "access": sorted(name for name in settings if name.partition(".")[0] in ACCESS),
        "given": sorted(given),
    }


def files_of(fleet: Fleet) -> dict[str, Path]:
    """Name → file, of all that says what this fleet is to be: inventory, variables, waivers, own rules."""
    beside = fleet.inventory.resolve().parent
    found = {f"{BESIDE}{fleet.inventory.name}": fleet.inventory.resolve()}
    owners = {"group_vars": {*fleet.groups, ALL}, "host_vars": set(fleet.hosts)}
    for prefix, root in (("", PROJECT), (BESIDE, beside)):
        for kind, names in owners.items():
            for path in sorted((root / kind).rglob("*")):
                place = path.relative_to(root)
                owner = place.parts[1] if len(place.parts) > 2 else path.stem
                hidden = any(part.startswith(".") or part.endswith("~") for part in place.parts)
                if path.is_file() and owner in names and path.suffix in _SUFFIXES and not hidden:
                    found[f"{prefix}{place.as_posix()}"] = path
    waivers = f"policy/waivers/{fleet.environment}.yml"
    if (PROJECT / waivers).is_file():
        found[waivers] = PROJECT / waivers
    for path in sorted((PROJECT / "policy").glob("*.rego")):
        found[f"policy/{path.name}"] = path
    return found


def path_of(inventory: Path, name: str) -> Path:
    """Where a file of a snapshot belongs. ValueError for a name that leads out of these places."""
    beside = name.startswith(BESIDE)
    root = (inventory.resolve().parent if beside else PROJECT).resolve()
    path = root / (name.removeprefix(BESIDE) if beside else name)
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"{name} is no file of a configuration")
    return path


def file_of(key: bytes, name: str, path: Path) -> dict[str, str]:
    """A file as a snapshot has it: its text, or a keyed digest and why there is only that."""
    content = path.read_bytes()
    why = _why_not(content)
    if why is None:
        return {"text": content.decode()}
    return {"secret": digest(key, name, content.decode("latin-1")) if key else "", "why": why}


def _why_not(content: bytes) -> str | None:
    if _VAULT in content:
        return "encrypted"
    try:
        names = sorted(
            {name for document in yaml.safe_load_all(content.decode()) for name in _secrets(document)}
        )
    except (UnicodeDecodeError, yaml.YAMLError):
        return "it cannot be read, so it is not known whether it holds a secret"
    return f"it holds {', '.join(names)}" if names else None


def _secrets(value: Any) -> Iterator[str]:
    """Names of secrets that are written in plain text, at any depth."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if is_secret(str(name)) and item not in (None, "", {}) and is_constant(item):
                yield str(name)
            else:
                yield from _secrets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item)


def _settings(variables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every setting of a host by name; a key by the name of whose it is."""
    for name in sorted(variables):
        value = variables[name]
        if name.startswith("vault_") or name in _BY_NAME:
            if isinstance(value, Mapping):
                yield from ((f"{name}.{entry}", value[entry]) for entry in sorted(value))
            else:
                yield name, value
        elif name in _names() or name in _OF_ANSIBLE:
            yield name, value


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(name for part in PARTS for name in variables_of(part))


def digest(key: bytes, name: str, text: str) -> str:
    """The keyed digest of a value; of another setting the same value has another one."""
    return hmac.new(key, f"{name}\0{text}".encode(), hashlib.sha256).hexdigest()[:_SHORT]


def key_of(inventory: Path) -> bytes:
    """The key of an inventory's digests; empty when there is no vault password."""
    try:
        password = read_password(inventory)
    except VaultPasswordMissingError:
        return b""
    return _key(password, environment_of(inventory))


@functools.cache
def _key(password: str, environment: str) -> bytes:
    # slow on purpose: the digests must not be a way to try passwords out
    salt = f"mt5crs audit log {environment}".encode()
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
