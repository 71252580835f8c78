"""A password or address in the vault that comes from elsewhere, replaced by its kind."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.fleet.inventory import Fleet
from deploy.vaults import store, text, usage

SETTINGS: Mapping[str, str] = {
    "broker": "gateway_mt5_password",
    "webhook": "monitoring_webhook_url",
    "watchdog": "monitoring_watchdog_url",
    "hub-watch": "monitoring_hub_watch_url",
    "hub-watch-secret": "monitoring_hub_watch_secret",
    "signed-webhook": "hub_webhook_url",
    "webhook-secret": "hub_webhook_secret",
    "windows-account": "baseline_windows_account_password",
}
"""Kind → the setting that has it."""
_SIGN = ("webhook-secret", "hub-watch-secret")
MADE_HERE = ("windows-account", *_SIGN)
"""Kinds whose new value is made at random; the others are told by whoever gives them out."""


@dataclass(frozen=True)
class Place:
    """A secret of the vault, and the hosts that have it."""

    entry: str
    setting: str
    hosts: tuple[str, ...]


def find(fleet: Fleet, held: Mapping[str, Any], kind: str, name: str | None) -> Place:
    """Which secret is meant: the one of this kind, or by its name or a host's. VaultError: none, many."""
    setting = SETTINGS[kind]
    there = {
        entry: tuple(each.partition(" ")[0] for each in of if each.endswith(f" {setting}"))
        for entry, of in usage.users(fleet, held).items()
    }
    there = {entry: hosts for entry, hosts in there.items() if hosts}
    if not there:
        raise store.VaultError(
            f'no host has {setting} from the vault: set it to "{{{{ vault_{setting} }}}}" in group_vars, and '
            f"vault_{setting} with `secrets edit`"
        )
    fitting = [entry for entry, hosts in there.items() if name in (None, entry, *hosts)]
    if not fitting:
        known = sorted({*there, *(host for hosts in there.values() for host in hosts)})
        raise store.VaultError(f"no {kind} secret is called {name}{text.nearest(str(name), known)}")
    if len(fitting) > 1:
        raise store.VaultError(f"there are {len(fitting)}: name one of {', '.join(sorted(fitting))}")
    return Place(fitting[0], setting, there[fitting[0]])


def replace(inventory: Path, place: Place, value: Callable[[str], str]) -> tuple[Path, str]:
    """Put a new value in its place; the vault, and its text of before. VaultError, and nothing was changed.

    value: asked for it once the vault is ours alone, with the old one
    """
    path = store.open_vault(inventory).path
    with store.locked(path.parent):
        vault = store.open_vault(inventory)
        old = text.entries(text.values(vault.text)).get(place.entry)
        new = value(str(old))
        if new == old:
            raise store.VaultError(f"that is the value that {place.entry} has already; nothing was changed")
        wrong = text.problems_of(place.setting, new)
        if wrong:
            raise store.VaultError(f"{'; '.join(wrong)} Nothing was changed")
        if store.read(path) != vault.sealed:
            raise store.VaultError(f"{path} was changed by something else meanwhile; try again")
        variable, _, below = place.entry.partition(".")
        changed = text.with_value(vault.text, (variable, below) if below else (variable,), new)
        store.replace(path, store.seal(changed, vault.password))
    return path, vault.text


def from_file(path: Path) -> str:
    """The value in a file that its owner alone can read, without the end of its line. VaultError."""
    content = store.read(path)
    if path.stat().st_mode & 0o077:
        raise store.VaultError(f"others can read {path}: run `chmod 600 {path}`, and have the secret changed")
    try:
        value = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise store.VaultError(f"{path} is not UTF-8; write the secret into it again") from None
    if not value or "\n" in value:
        raise store.VaultError(f"{path} must hold the secret and nothing else, in one line")
    return value


def made(kind: str, old: str) -> str:
    """A new value of a kind that is made here.

    For the account of a Windows host 192 random bits, all classes of characters; to sign with 256, and the
    one that was in force behind it, so that posts have both signatures.
    """
    if kind in _SIGN:
        new = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        return " ".join([new, *old.split()[:1]])
    return f"Aa1-{secrets.token_urlsafe(24)}"
