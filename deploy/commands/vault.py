"""`mt5crs --inventory … secrets init|view|edit`: an environment's vault, without a value on the screen."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.named_fleet import inventory_named
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import table

if TYPE_CHECKING:
    from deploy.vaults.store import Vault


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what can go wrong with a vault into one sentence and exit status 1; a signal ends as one."""
    from deploy.fleet.inventory import InventoryError
    from deploy.keys import KeysError
    from deploy.vaults.private import InterruptedByError
    from deploy.vaults.store import VaultError
    from deploy.vaults.text import VaultTextError

    try:
        yield
    except (InventoryError, KeysError, VaultError, VaultTextError) as error:
        raise click.ClickException(str(error)) from None
    except InterruptedByError as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)


def consequences(
    inventory: Path, before: Mapping[Path, str], after: Mapping[Path, str] | None = None
) -> None:
    """Say what a deployment of what was changed would do, and how to begin it.

    before, after: texts of the changed files, decrypted; after None: what is there now.
    """
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.vaults.usage import Consequence, consequence

    try:
        found = consequence(resolve(inventory, instead=before), resolve(inventory, instead=after))
    except InventoryError as error:
        found = Consequence(unknown=str(error))
    click.echo(found.told)
    if found.unknown or found.services or found.hosts:
        click.echo(f"to be deployed: {deployment(inventory)}")
    if after is None:
        click.echo(f"commit what was changed in {next(iter(before)).parent}, so that others have it too")


def deployment(inventory: Path) -> str:
    """The command that deploys a fleet."""
    beside = inventory.with_suffix(".py")
    if beside.is_file():
        return f"pyinfra {beside} deploy.py"
    return f"ansible-playbook -i {inventory} site.yml"


@click.command()
def init() -> None:
    """Make the vault of an environment that has none, with the keys that its hosts need, and its password.

    The password (256 random bits) is written where `secrets` looks for it, mode 0600. Nothing is replaced.
    """
    from deploy import keys
    from deploy.fleet.vault_password import password_file, vault_files
    from deploy.vaults.store import VaultError

    inventory = inventory_named()
    with one_sentence():
        there = vault_files(inventory)
        if there:
            raise VaultError(
                f"{there[0]} exists already, and nothing is replaced; `secrets edit` changes it, `secrets "
                "rotate` gives it other keys or another password"
            )
        public = keys.directory_of(inventory) / "keys.yml"
        if public.exists():
            raise VaultError(
                f"{public} exists, but not the vault with the secret halves: bring vault.yml back (git, a "
                "backup). If it is lost, remove keys.yml, and every key of the fleet is made anew"
            )
        place = password_file(inventory)
        had = place.exists()
        made = keys.make(inventory)
    click.echo(f"made {public.with_name('vault.yml')} with {len(made.create)} keys, and {public}")
    click.echo(f"the password {'that was there' if had else 'is new'}: {place}")
    click.echo("keep a copy of the password in your safe: without it the vault, and all backups, are lost")
    acted("vault.made", keys=[f"{kind} {name}" for kind, name in made.create])


@click.command()
@click.argument("name", required=False)
@click.option("--show", metavar="NAME", help="Print this secret's value, on a terminal only. It is recorded.")
@click.option("--to-pipe", is_flag=True, help="With --show: also where it is no terminal that it goes to.")
@json_option
def view(name: str | None, show: str | None, to_pipe: bool, as_json: bool) -> None:
    """Show the names of the secrets in the vault and where each is used; values only by --show NAME.

    NAME: one of them, or a variable with all that is below it.
    """
    from deploy.vaults import text
    from deploy.vaults.store import open_vault

    inventory = inventory_named()
    if show and (name or as_json):
        raise click.UsageError("--show NAME prints one value and nothing else; leave the other words out")
    if to_pipe and not show:
        raise click.UsageError("--to-pipe goes with --show NAME")
    with one_sentence():
        vault = open_vault(inventory)
        held = text.values(vault.text)
    entries = text.entries(held)
    if show:
        _show(show, entries, to_pipe=to_pipe)
        return
    chosen = [each for each in entries if name is None or _below(each, name)]
    if not chosen and name is not None:
        raise click.ClickException(f"{vault.path} has no {name}{text.nearest(name, list(entries))}")
    used, why = _used(inventory, vault)
    if as_json:
        click.echo(json.dumps([{"name": each, "used_by": used.get(each)} for each in chosen]))
    else:
        rows = [(each, ", ".join(used[each]) or "nothing" if each in used else "?") for each in chosen]
        click.echo(table(("NAME", "USED BY"), rows))
    if why:
        click.echo(f"where they are used is unknown: {why}", err=True)


def _below(entry: str, name: str) -> bool:
    return entry == name or entry.startswith((f"{name}.", f"{name}["))


def _show(name: str, entries: Mapping[str, Any], *, to_pipe: bool) -> None:
    from deploy.vaults import text

    if name not in entries:
        raise click.ClickException(f"the vault has no {name}{text.nearest(name, list(entries))}")
    if not sys.stdout.isatty() and not to_pipe:
        raise click.ClickException(
            "this is no terminal: the value would be in a file, log or other program; --to-pipe if it should"
        )
    acted("secret.shown", name=name)  # before: who was shown it may end this program at once
    click.echo(str(entries[name]))


def _used(inventory: Path, vault: Vault) -> tuple[dict[str, list[str]], str]:
    """Name → where it is used, and why that is not known."""
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.policy.holders import CONTROLLER, holders
    from deploy.vaults import text, usage

    try:
        fleet = resolve(inventory)
    except InventoryError as error:
        return {}, str(error)
    found = usage.users(fleet, text.values(vault.text))
    for name, of in found.items():
        if not of and name.startswith("vault_client_former_secret_keys."):
            of.append(f"{CONTROLLER}, until the new one is deployed")
    for holder in holders(fleet):
        if holder.held == CONTROLLER and holder.variable in found and not found[holder.variable]:
            found[holder.variable].append(f"{CONTROLLER} ({holder.may})")
    return found, ""


@click.command()
def edit() -> None:
    """Open the vault in $EDITOR, and encrypt it again if it is good. Only names of what changed are shown.

    The decrypted copy lies in memory where the system has such a place, mode 0600, and is removed whatever
    happens. What is wrong is told, and can be edited again; the vault is replaced in one step or not at all.
    """
    from deploy.vaults import editing
    from deploy.vaults.store import VaultError, locked, open_vault

    inventory = inventory_named()

    def again(wrong: str) -> bool:
        if not sys.stdin.isatty():
            return False
        click.echo(wrong, err=True)
        return click.confirm("edit again?", default=True, err=True)

    with one_sentence():
        command = editing.editor(os.environ, terminal=sys.stdin.isatty() and sys.stdout.isatty())
        vault = open_vault(inventory)
        if not os.access(vault.path.parent, os.W_OK):
            raise VaultError(f"you cannot write in {vault.path.parent}; nothing could be kept of an edit")
        with locked(vault.path.parent):
            vault = open_vault(inventory)
            made = editing.edit(
                vault, inventory, command, again=again, say=lambda told: click.echo(told, err=True)
            )
    if made is None:
        click.echo("nothing was changed")
        return
    for word, names in (("added", made.added), ("changed", made.changed), ("removed", made.removed)):
        for each in names:
            click.echo(f"{word:8} {each}")
    if not made.names:
        click.echo("only comments or the order changed")
        return
    consequences(inventory, {vault.path: vault.text})
    acted("vault.edited", added=list(made.added), edited=list(made.changed), removed=list(made.removed))
