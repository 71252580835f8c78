"""Makes the CURVE keys of a fleet: `python -m deploy.keys --inventory inventory/lab.yml`.

Every gateway and every client of the inventory gets a key pair. Secrets go to an encrypted vault, public keys
to a plain file beside it; what exists is kept, so that the command can be repeated after a host was added.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deploy.fleet.curve import pair, public_half
from deploy.fleet.inventory import WINDOWS, InventoryError, groups_in
from deploy.fleet.vault_password import (
    PROJECT,
    VaultPasswordMissingError,
    environment_of,
    password_file,
    read_password,
    vault_lib,
)
from deploy.vaults import replacing, store, text

GATEWAYS = "gateway"
CLIENTS = "client"
"""Kinds of keys that are made here."""
ALL = "all"
OPERATOR = "ops"
"""The client of people and tools on the controller; the others run on hosts."""
FORMER_OPERATORS = "vault_client_former_secret_keys"
FORMER_GATEWAYS = "fleet_gateway_former_public_keys"
"""What this controller reaches gateways with until a rotation is deployed."""
_KEPT_FORMERS = 3


class KeysError(RuntimeError):
    """Keys could not be made or read; the text names cause and remedy."""


class Plan(NamedTuple):
    """What is made. Names are (kind, name).

    create: get a new pair. stale: belong to no host any more. mended: the public half was that of another
    pair, as when a change was interrupted; it follows from the secret one.
    """

    create: list[tuple[str, str]]
    stale: list[tuple[str, str]]
    mended: list[tuple[str, str]]


@dataclass(frozen=True, repr=False)
class Made:
    """What was made; the texts of each changed file before and after it, decrypted."""

    plan: Plan
    before: Mapping[Path, str]
    after: Mapping[Path, str]


def wanted_names(groups: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """(kind, name) of every key pair a fleet needs, from the hosts of its groups."""
    names = [(GATEWAYS, host) for host in groups.get("gateway", ())]
    for host in groups.get("inf", ()):
        names += [(CLIENTS, f"{host}-reconciler"), (CLIENTS, f"{host}-strategy")]
    for host in groups.get("hub", ()):
        names += [(CLIENTS, f"{host}-monitor"), (CLIENTS, f"{host}-halt")]
    names.append((CLIENTS, OPERATOR))
    return names


def plan(
    wanted: Iterable[tuple[str, str]],
    existing: Iterable[tuple[str, str]],
    rotate: Iterable[str],
    torn: Iterable[tuple[str, str]] = (),
) -> Plan:
    """Decide what to make. KeysError when a name to rotate is not one of the fleet's.

    torn: pairs whose halves do not fit; a new pair was begun, so that one is finished and none made again
    """
    wanted, existing, rotate = list(wanted), set(existing), set(rotate)
    unknown = rotate - {name for _, name in wanted}
    if unknown:
        names = [name for _, name in wanted]
        near = text.nearest(sorted(unknown)[0], names)
        raise KeysError(f"cannot rotate {', '.join(sorted(unknown))}: no such key{near}")
    mended = sorted(set(torn) & set(wanted))
    create = [key for key in wanted if key not in mended and (key not in existing or key[1] in rotate)]
    return Plan(create, sorted(existing - set(wanted)), mended)


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
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise KeysError(f"{path.parent} cannot be made: {error.strerror}") from None
        try:
            store.replace(path, f"{secrets.token_hex(32)}\n".encode())
        except store.VaultError as error:
            raise KeysError(str(error)) from None
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
    return _made(inventory, directory, frozenset(rotate), prune=prune).plan


def rotate(inventory: Path, kind: str, name: str, *, dry: bool = False) -> Made:
    """Replace the pair of one name, or of `all` of a kind. Called again after an interruption, it finishes.

    dry: write nothing; what would be written is told. Raises KeysError.
    """
    directory = directory_of(inventory)
    if not (directory / "vault.yml").is_file():
        raise KeysError(
            f"{inventory} has no vault yet; `mt5crs --inventory {inventory} secrets init` makes one"
        )
    names = [each for of, each in wanted_names(groups_in(inventory)) if of == kind]
    if name not in (*names, ALL):
        raise KeysError(f"the fleet has no {kind} {name}{text.nearest(name, [*names, ALL])}")
    return _made(inventory, directory, frozenset(names if name == ALL else [name]), dry=dry)


def would_make(inventory: Path, text_of_it: str) -> Made:
    """What `make` with `prune` would write if the inventory had this text; nothing is. Raises KeysError."""
    return _made(inventory, directory_of(inventory), frozenset(), prune=True, dry=True, instead=text_of_it)


def _made(
    inventory: Path,
    directory: Path,
    rotate: frozenset[str],
    *,
    prune: bool = False,
    dry: bool = False,
    instead: str | None = None,
) -> Made:
    password = ensure_password(inventory, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with store.locked(directory):
            made = _prepared(inventory, directory, password, rotate, prune=prune, instead=instead)
            # The vault first: a public half can be had from the secret one, not the other way round.
            for path, content in () if dry else made.after.items():
                if path.name == "vault.yml":
                    store.replace(path, store.seal(content, password))
                else:
                    store.replace(path, content.encode(), 0o644)
            return made
    except OSError as error:
        raise KeysError(f"{directory} cannot be made: {error.strerror}") from None
    except (store.VaultError, text.VaultTextError, InventoryError) as error:
        raise KeysError(str(error)) from None


def _prepared(
    inventory: Path,
    directory: Path,
    password: str,
    rotate: frozenset[str],
    *,
    prune: bool,
    instead: str | None,
) -> Made:
    vault_path, keys_path = directory / "vault.yml", directory / "keys.yml"
    held = _read_vault(vault_path, password) if vault_path.exists() else _begun(_OF_VAULT)
    told = store.read(keys_path).decode() if keys_path.exists() else _begun(_OF_KEYS)
    vault, public = text.values(held), text.values(told)
    before = {vault_path: held, keys_path: told}

    existing, torn = set(), set()
    for kind in (GATEWAYS, CLIENTS):
        beside = public.get(_public_variable(kind)) or {}
        for name, secret in (vault.get(_secret_variable(kind)) or {}).items():
            half = public_half(str(secret))
            if name in beside:
                existing.add((kind, name))
            if half is not None and beside.get(name) != half:
                torn.add((kind, name))
    groups = groups_in(inventory, instead)
    decided = plan(wanted_names(groups), existing, rotate, torn)
    there = vault.get(text.ACCOUNTS) or {}
    accounts = [host for host in groups.get(WINDOWS, ()) if host not in there]
    if not decided.create and not decided.mended and not accounts and not (prune and decided.stale):
        return Made(decided, {}, {})
    for host in accounts:
        held = text.with_value(held, (text.ACCOUNTS, host), replacing.made("windows-account", ""))
    for kind, name in decided.create:
        if (kind, name) == (CLIENTS, OPERATOR) and (kind, name) in existing:
            former = str(vault[_secret_variable(kind)][name])
            formers = _formers(former, vault.get(FORMER_OPERATORS), name)
            held = text.with_value(held, (FORMER_OPERATORS, name), formers)
        if kind == GATEWAYS and (kind, name) in existing:
            formers = _formers(str(public[_public_variable(kind)][name]), public.get(FORMER_GATEWAYS), name)
            told = text.with_value(told, (FORMER_GATEWAYS, name), formers)
        public_key, secret_key = pair()
        held = text.with_value(held, (_secret_variable(kind), name), secret_key)
        told = text.with_value(told, (_public_variable(kind), name), public_key)
    for kind, name in decided.mended:
        half = public_half(str(vault[_secret_variable(kind)][name]))
        if kind == GATEWAYS and name in (public.get(_public_variable(kind)) or {}):
            formers = _formers(str(public[_public_variable(kind)][name]), public.get(FORMER_GATEWAYS), name)
            told = text.with_value(told, (FORMER_GATEWAYS, name), formers)
        told = text.with_value(told, (_public_variable(kind), name), str(half))
    for kind, name in decided.stale if prune else ():
        if name in (public.get(FORMER_GATEWAYS) or {}):
            told = text.without(told, (FORMER_GATEWAYS, name))
        held = text.without(held, (_secret_variable(kind), name))
        told = text.without(told, (_public_variable(kind), name))

    after = {vault_path: held, keys_path: told}
    new = [path for path in after if not path.exists() or after[path] != before[path]]
    return Made(decided, {path: before[path] for path in new}, {path: after[path] for path in new})


def _formers(newest: str, before: Mapping[str, str] | None, name: str) -> str:
    """Keys of before, newest first: which of them is deployed is not known here."""
    older = [each for each in str((before or {}).get(name, "")).split() if each != newest]
    return " ".join([newest, *older][:_KEPT_FORMERS])


_OF_VAULT = "Secret keys; `mt5crs … secrets edit` changes this file."
_OF_KEYS = "Public keys, made by `python -m deploy.keys`."


def _begun(comment: str) -> str:
    return f"---\n# {comment}\n"


def _secret_variable(kind: str) -> str:
    return f"vault_{kind}_secret_keys"


def _public_variable(kind: str) -> str:
    return f"fleet_{kind}_public_keys"


def _read_vault(path: Path, password: str) -> str:
    from ansible.errors import AnsibleError

    try:
        content = bytes(vault_lib(password).decrypt(store.read(path)))
    except AnsibleError:
        raise KeysError(
            f"{path} cannot be opened: the vault password is a wrong one; use the one it was made with "
            "(ANSIBLE_VAULT_PASSWORD_FILE), or delete the file to make new keys"
        ) from None
    return content.decode()


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
    for kind, name in done.mended:
        print(f"finished  {kind} {name}: its public half is now that of the secret one in the vault")
    for kind, name in done.stale:
        print(f"{'forgotten' if options.prune else 'stale    '} {kind} {name}")
    if not any(done):
        print(f"unchanged: every key of {options.inventory} exists")
    return 0


if __name__ == "__main__":
    sys.exit(main())
