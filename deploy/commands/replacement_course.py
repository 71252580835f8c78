"""Another machine takes a gateway's place: the former fenced, its state handed over, deployed, emptied.

Each part can be repeated; where it was is in the record.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.replacement_evidence import ANSWER_WITHIN_S, ReplacingError, files_naming
from deploy.commands.steps import deploy, deployment_command, step
from mt5crs.operate.acts import acted

if TYPE_CHECKING:
    from deploy.decommission.replaced import Record
    from deploy.fleet.inventory import Fleet


def hand_over(fleet: Fleet, after: Fleet, made: Record, backup: Mapping[str, Any] | None) -> None:
    """Fence the former, and put its state on the new machine. Can be repeated."""
    from deploy.backup import storing
    from deploy.backup.copies import CopyError
    from deploy.decommission import on_host

    again = "the inventory was not changed; mend that, then call this again"
    try:
        if not made.lost:
            with step(f"stop the gateway of {made.former} for good"):
                on_host.fence(fleet.hosts[made.former])
        with step(f"put its state on {made.new}"):
            if made.lost and backup is None:
                storing.call(after, made.new, "begin", "gateway")
                return
            if backup is None:
                name, sent = made.id, str(storing.call(fleet, made.former, "take", "")["content"])
            else:
                name = str(backup["id"])
                sent = base64.b64encode(storing.copy_of(fleet, backup, made.former)).decode()
            storing.call(after, made.new, "restore", "gateway", name, stdin=sent)
    except (on_host.HostError, storing.BackupError, CopyError) as error:
        raise ReplacingError(f"{error}; {again}") from None


def describe(inventory: Path, files: Mapping[Path, str]) -> None:
    """The inventory first: once it names the new host, another call goes on from here."""
    from deploy.fleet.restoring import write
    from deploy.keys import make

    for path, text in files.items():
        write(path, text)
    make(inventory, prune=True)


def end(made: Record, inventory: Path) -> None:
    """Everything after the inventory; can be repeated."""
    call = f"mt5crs --inventory {inventory} replace {made.former} {made.new} {made.address} --reason …"
    again = f"call this again: {call}"
    if made.phase == "described":
        describe(inventory, _left(inventory, made))
        why = f"{made.new} for {made.former}: {made.reason}"
        command = deployment_command(inventory, strategy="all_at_once", why=why, alerts="report")
        if (status := deploy(command)) != 0:
            raise ReplacingError(
                f"the deployment failed (status {status}; its own words are above). {made.former} stays "
                f"stopped, nothing trades; mend that, then {again}"
            )
        made.reached("deployed")
        acted(
            "host.replaced",
            host=made.new,
            old=made.former,
            new=made.new,
            address=made.address,
            reason=made.reason,
            lost=made.lost,
        )
    if made.phase == "deployed" or made.lost:
        _empty(made, again)
    made.reached("done")
    click.echo(
        f"{made.new} is the gateway that {made.former} was, and is halted. Its state: {made.state}.\n"
        f"next: compare `mt5crs --inventory {inventory} positions --all` and `orders` with the terminal, "
        "`resolve` what is unresolved, then `resume --reason …`; commit the inventory"
    )


def _left(inventory: Path, made: Record) -> dict[Path, str]:
    """Files of variables that name the former still, as a call that was killed has left them → text then."""
    from deploy.decommission.renaming import Renaming

    whole, renaming = inventory.resolve(), Renaming(made.former, made.new, made.address, made.address)
    return {path: text for path, text in files_naming(whole, renaming).items() if path != whole}


def _empty(made: Record, again: str) -> None:
    """Remove the gateway from the former machine; one that is lost is, when it answers after all."""
    from deploy.decommission import on_host
    from deploy.remote import ssh

    if made.lost and ssh.run(made.connection, ["true"], timeout_s=ANSWER_WITHIN_S).status != 0:
        click.echo(
            f"{made.former} is lost: nothing on it was removed. If its machine ever starts again, its "
            "gateway logs in to the account: replace the broker's password (`secrets rotate broker`), or, "
            f"when it answers, {again}"
        )
        return
    try:
        with step(f"stop {made.former} for good, remove keys, code and state from it"):
            on_host.fence(made.connection)
            on_host.remove(made.connection, on_host.GATEWAY)
    except on_host.HostError as error:
        raise ReplacingError(f"{made.former}: {error}; {again}") from None


@contextmanager
def alone_for(fleet: Fleet, why: str) -> Iterator[None]:
    """Under the fleet's lock. ReplacingError, naming who has it, when that cannot be had."""
    from deploy.coordination.alone import alone
    from deploy.coordination.fleet_lock import LockError

    try:
        with alone(fleet, "replace", why, click.echo):
            yield
    except LockError as error:
        raise ReplacingError(f"{error}; call this again after that") from None
