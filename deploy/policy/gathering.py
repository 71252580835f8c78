"""Looks up the facts that rules judge: the fleet's settings, its secrets' shape, files of this machine."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.fleet.curve import public_half
from deploy.fleet.inventory import Fleet, is_constant
from deploy.fleet.layers import is_encrypted, is_secret, layers, origin
from deploy.fleet.rendering import RenderingError, render
from deploy.fleet.services import NAMES
from deploy.fleet.settings import PARTS, address_problems, form_problems, variables_of
from deploy.fleet.vault_password import PROJECT, password_file
from deploy.policy.facts import BundleFacts, DeployedFile, Facts, HeldFile, Host, KeyPair, Place, Secret
from deploy.rollout.plan import has_service
from mt5crs_release.bundles.bundle import peek_manifest

_COMMON = frozenset(
    ("password", "passw0rd", "changeme", "secret", "admin", "12345678", "example", "letmein1")
)
_READ = ("*.yml", "*.yaml", "*.py", "*.j2", "*.json", "*.env", "*.rego")
_TELLING = 12
"""A shorter text stands in many files without being the secret."""


def gather(fleet: Fleet) -> Facts:
    """Everything that rules may know of a fleet; no host is asked. InventoryError as in `layers`."""
    texts = vault_texts(fleet)
    form, addresses = form_problems(fleet), address_problems(fleet)
    return Facts(
        environment=fleet.environment,
        now=datetime.now(timezone.utc),
        hosts={
            host: Host(groups_of(fleet, host), plain_settings(values)) for host, values in fleet.hosts.items()
        },
        form_problems=tuple(form),
        address_problems=tuple(addresses),
        secrets=tuple(_secrets(texts)),
        written_plain=tuple(_written_plain(fleet)),
        copied_plain=tuple(_copied_plain(fleet, texts)),
        key_pairs=tuple(_key_pairs(fleet, texts)),
        held_files=tuple(_held_files(fleet)),
        # Templates of a fleet whose settings are wrong cannot be rendered; it is refused anyway.
        deployed_files=() if form else tuple(_deployed_files(fleet, texts)),
        bundles=tuple(_bundles(fleet)),
    )


def groups_of(fleet: Fleet, host: str) -> tuple[str, ...]:
    """The inventory groups of a host."""
    return tuple(group for group, members in fleet.groups.items() if host in members)


def plain_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The declared settings that are no secrets."""
    declared = {name: field for part in PARTS for name, field in variables_of(part).items()}
    return {name: value for name, value in values.items() if name in declared and not declared[name].secret}


def vault_texts(fleet: Fleet) -> dict[str, str]:
    """Name → text of every secret: the vault's variables, and secret settings that are not made of them."""
    found: dict[str, str] = {}
    for values in fleet.hosts.values():
        for name, value in values.items():
            if name.startswith("vault_"):
                found |= dict(_leaves(name, value))
    known = set(found.values())
    for host, values in fleet.hosts.items():
        for part in PARTS:
            for name, field in variables_of(part).items():
                text = values.get(name)
                if field.secret and isinstance(text, str) and text and text not in known:
                    found[f"{name} of {host}"] = text
    return found


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value:
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(f"{name}[{number}]", inner)


def _secrets(texts: Mapping[str, str]) -> Iterator[Secret]:
    once = secrets.token_bytes(32)  # so that a fingerprint tells nothing outside of this look
    seen: set[tuple[str, str]] = set()
    for name, text in texts.items():
        fingerprint = hmac.new(once, text.encode(), hashlib.sha256).hexdigest()
        # A setting of the whole fleet is one secret, on however many hosts.
        what = name.partition(" of ")[0]
        if (what, fingerprint) not in seen:
            yield Secret(what, fingerprint, len(text), len(set(text)), text.lower() in _COMMON)
        seen.add((what, fingerprint))


def _written_plain(fleet: Fleet) -> Iterator[Place]:
    seen = set()
    for of in layers(fleet.inventory).values():
        for layer in of:
            for name, value in layer.values.items():
                if not is_secret(name) or is_encrypted(layer, name) or not value or not is_constant(value):
                    continue
                file, _, line = origin(layer, name).rpartition(":")
                place = Place(file, int(line), name) if line.isdigit() else Place(layer.file, None, name)
                if place not in seen:
                    yield place
                seen.add(place)


def _copied_plain(fleet: Fleet, texts: Mapping[str, str]) -> Iterator[Place]:
    """Files beside the inventory and of the project's configuration that hold a vault's secret."""
    sought = {text: name for name, text in texts.items() if len(text) >= _TELLING and " of " not in name}
    beside = fleet.inventory.resolve().parent
    places = {
        beside,
        *(PROJECT / name for name in ("group_vars", "host_vars", "inventory", "policy", "templates")),
    }
    for path in sorted({path for place in places for pattern in _READ for path in place.rglob(pattern)}):
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # not to be read here, so not a copy that this user could have made
        if content.startswith("$ANSIBLE_VAULT"):
            continue
        for text, name in sought.items():
            if text in content:
                yield Place(_shown(path), content[: content.index(text)].count("\n") + 1, name)


def _key_pairs(fleet: Fleet, texts: Mapping[str, str]) -> Iterator[KeyPair]:
    values = next(iter(fleet.hosts.values()), {})
    for kind in ("gateway", "client"):
        for name, public in (values.get(f"fleet_{kind}_public_keys") or {}).items():
            secret = texts.get(f"vault_{kind}_secret_keys.{name}")
            if secret is not None:
                yield KeyPair(f"{kind} {name}", public_half(secret) == public)


def _held_files(fleet: Fleet) -> Iterator[HeldFile]:
    keys = {str(values["fleet_ssh_key"]) for values in fleet.hosts.values() if values.get("fleet_ssh_key")}
    wanted = [("vault password", password_file(fleet.inventory))]
    wanted += [("SSH key", Path(key).expanduser()) for key in sorted(keys)]
    for what, path in wanted:
        try:
            mode = path.stat().st_mode & 0o777
        except FileNotFoundError:
            continue  # an agent's key, say: nobody reads what is not there
        if path.is_file() and not mode & 0o111:  # a script that prints the password holds none
            yield HeldFile(_shown(path), what, mode)


def _deployed_files(fleet: Fleet, texts: Mapping[str, str]) -> Iterator[DeployedFile]:
    sought = [text for text in texts.values() if len(text) >= _TELLING]
    for host, values in fleet.hosts.items():
        for service in NAMES:
            if not has_service(fleet, host, service):
                continue
            try:
                files = json.loads(render(f"release/{service}.json.j2", values))["files"]
            except RenderingError:
                continue  # the plan of the deployment says it, with its cause
            for path, of in files.items():
                holds = any(text in of["content"] for text in sought)
                yield DeployedFile(host, service, path, int(of["mode"], 8), holds)


def _bundles(fleet: Fleet) -> Iterator[BundleFacts]:
    for name in dict.fromkeys(values.get("fleet_bundle") for values in fleet.hosts.values()):
        path = PROJECT / str(name)
        manifest = peek_manifest(path) if name else None
        if manifest is not None:
            yield BundleFacts(path.name, str(manifest.get("commit")), _time(manifest), _unpinned(path))


def _time(manifest: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(manifest["built"]).replace("Z", "+00:00"))
    except (KeyError, ValueError):
        return None


def _unpinned(bundle: Path) -> tuple[str, ...]:
    try:
        with tarfile.open(bundle, "r:") as archive:
            member = archive.extractfile("requirements.txt")
            lines = member.read().decode().splitlines() if member else []
    except (OSError, tarfile.TarError, KeyError):
        lines = []
    if not lines:
        return ("(no list of packages)",)
    return tuple(line for line in lines if line.strip() and not ("==" in line and "--hash=sha256:" in line))


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
