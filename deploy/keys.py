"""Makes the CURVE keys of a fleet: `python -m deploy.keys --inventory inventory/lab.yml`.

Every gateway and every client of the inventory gets a key pair. Secrets go to an encrypted vault, public keys
to a plain file beside it; what exists is kept, so that the command can be repeated after a host was added.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from deploy.fleet.inventory import WINDOWS, prepare_ansible
from deploy.fleet.vault_password import (
    PROJECT,
    VaultPasswordMissingError,
    environment_of,
    password_file,
    read_password,
    vault_lib,
)

GATEWAYS = "gateway"
CLIENTS = "client"
_ACCOUNTS = "vault_windows_account_passwords"


class KeysError(RuntimeError):
    """Keys could not be made or read; the text names cause and remedy."""


class Plan(NamedTuple):
    """Which names get a new pair, and which existing ones belong to no host any more."""

    create: list[tuple[str, str]]
    stale: list[tuple[str, str]]


def wanted_names(groups: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """(kind, name) of every key pair a fleet needs, from the hosts of its groups."""
    names = [(GATEWAYS, host) for host in groups.get("gateway", ())]
    for host in groups.get("inf", ()):
        names += [(CLIENTS, f"{host}-reconciler"), (CLIENTS, f"{host}-strategy")]
    names += [(CLIENTS, f"{host}-monitor") for host in groups.get("hub", ())]
    names.append((CLIENTS, "ops"))
    return names


def plan(
    wanted: Iterable[tuple[str, str]], existing: Iterable[tuple[str, str]], rotate: Iterable[str]
) -> Plan:
    """Decide what to make. KeysError when a name to rotate is not one of the fleet's."""
    wanted, existing, rotate = list(wanted), set(existing), set(rotate)
    unknown = rotate - {name for _, name in wanted}
    if unknown:
        known = ", ".join(name for _, name in wanted)
        raise KeysError(f"cannot rotate {', '.join(sorted(unknown))}: no such key; there are {known}")
    create = [key for key in wanted if key not in existing or key[1] in rotate]
    return Plan(create, sorted(existing - set(wanted)))


def directory_of(inventory: Path) -> Path:
    """Where this inventory's vault.yml and keys.yml lie."""
    environment = environment_of(inventory)
    if environment == "lab":
        return inventory.resolve().parent / "group_vars" / "lab"
    return PROJECT / "group_vars" / environment


def ensure_password(inventory: Path, directory: Path | None = None) -> str:
    """The vault password of this inventory, made (256 random bits, mode 0600) when there is none yet.

    directory: where its vault lies. KeysError if there is a vault already: a new password could not open it.
    """
    path = password_file(inventory)
    if not path.exists() and not ((directory or directory_of(inventory)) / "vault.yml").exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, secrets.token_hex(32) + "\n", 0o600)
    try:
        return read_password(inventory)
    except VaultPasswordMissingError as error:
        raise KeysError(str(error)) from None


def make(
    inventory: Path, *, rotate: Iterable[str] = (), prune: bool = False, directory: Path | None = None
) -> Plan:
    """Make the missing (and the rotated) key pairs of an inventory; returns what was done.

    prune: also forget the keys of hosts that are gone. directory: where they lie, if not where this
    inventory has them. Raises KeysError.
    """
    if not inventory.exists():
        raise KeysError(f"{inventory} does not exist; name an inventory such as inventory/lab.yml")
    directory = directory or directory_of(inventory)
    vault_path, keys_path = directory / "vault.yml", directory / "keys.yml"
    password = ensure_password(inventory, directory)
    vault = _read_vault(vault_path, password) if vault_path.exists() else {}
    public = yaml.safe_load(keys_path.read_text(encoding="utf-8")) if keys_path.exists() else {}

    existing = {
        (kind, name)
        for kind in (GATEWAYS, CLIENTS)
        for name in vault.get(_secret_variable(kind), {})
        if name in (public or {}).get(_public_variable(kind), {})
    }
    groups = _groups(inventory)
    decided = plan(wanted_names(groups), existing, rotate)
    accounts = [host for host in groups.get(WINDOWS, ()) if host not in vault.get(_ACCOUNTS, {})]
    if not decided.create and not accounts and not (prune and decided.stale):
        return decided
    for host in accounts:
        vault.setdefault(_ACCOUNTS, {})[host] = account_password()
    for kind, name in decided.create:
        public_key, secret_key = _pair()
        vault.setdefault(_secret_variable(kind), {})[name] = secret_key
        public.setdefault(_public_variable(kind), {})[name] = public_key
    for kind, name in decided.stale if prune else ():
        vault[_secret_variable(kind)].pop(name, None)
        public[_public_variable(kind)].pop(name, None)

    directory.mkdir(parents=True, exist_ok=True)
    _write(vault_path, _encrypt(_yaml("Secret keys; edit with ansible-vault.", vault), password), 0o600)
    _write(keys_path, _yaml("Public keys, made by `python -m deploy.keys`.", public), 0o644)
    return decided


def account_password() -> str:
    """A new password for the local account of a Windows host: 192 random bits, all classes of characters."""
    return f"Aa1-{secrets.token_urlsafe(24)}"


def _secret_variable(kind: str) -> str:
    return f"vault_{kind}_secret_keys"


def _public_variable(kind: str) -> str:
    return f"fleet_{kind}_public_keys"


def _pair() -> tuple[str, str]:
    """(public, secret) of a new CURVE pair, as 64 hex characters each."""
    import zmq
    from zmq.utils import z85

    public, secret = zmq.curve_keypair()
    return z85.decode(public).hex(), z85.decode(secret).hex()


def _groups(inventory: Path) -> dict[str, list[str]]:
    prepare_ansible()
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader

    groups = InventoryManager(loader=DataLoader(), sources=[str(inventory)]).get_groups_dict()
    return {str(name): [str(host) for host in hosts] for name, hosts in groups.items()}


def _read_vault(path: Path, password: str) -> dict[str, Any]:
    from ansible.errors import AnsibleError

    try:
        content = vault_lib(password).decrypt(path.read_bytes())
    except AnsibleError:
        raise KeysError(
            f"{path} cannot be opened: the vault password is a wrong one; use the one it was made with "
            "(ANSIBLE_VAULT_PASSWORD_FILE), or delete the file to make new keys"
        ) from None
    return dict(yaml.safe_load(content) or {})


def _encrypt(text: str, password: str) -> str:
    return bytes(vault_lib(password).encrypt(text)).decode()


def _yaml(comment: str, values: Mapping[str, Any]) -> str:
    return f"---\n# {comment}\n" + yaml.safe_dump(dict(values), sort_keys=True, default_flow_style=False)


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step, never readable by more than `mode` allows."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    Path(temporary).replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0, or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m deploy.keys", description=__doc__.split("\n\n")[0])
    parser.add_argument("--inventory", type=Path, default=Path("inventory/lab.yml"))
    parser.add_argument(
        "--rotate", action="append", default=[], metavar="NAME", help="replace this key pair (repeatable)"
    )
    parser.add_argument("--prune", action="store_true", help="forget keys of hosts that are gone")
    options = parser.parse_args(arguments)
    try:
        done = make(options.inventory, rotate=options.rotate, prune=options.prune)
    except KeysError as error:
        print(f"keys: {error}", file=sys.stderr)
        return 1
    for kind, name in done.create:
        print(f"made      {kind} {name}")
    for kind, name in done.stale:
        print(f"{'forgotten' if options.prune else 'stale    '} {kind} {name}")
    if not done.create and not done.stale:
        print(f"unchanged: every key of {options.inventory} exists")
    return 0


if __name__ == "__main__":
    sys.exit(main())
