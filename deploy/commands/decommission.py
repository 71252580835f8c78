"""`mt5crs --inventory … decommission HOST`: an Inf host leaves the fleet for good, open positions or not.

Works on the controller. What was found out decides (`deploy.decommission.decision`). What is done is done in
an order in which nothing is lost when it ends anywhere: stop, look again, fetch, take out of the inventory,
deploy the rest (which revokes), remove. Nobody deploys meanwhile: it holds the fleet's lock for all but the
deployment, which takes it itself.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.commands.hosts import deploying
from deploy.commands.named_fleet import chosen_fleet, fleet_of, of_fleet
from deploy.commands.steps import clock, deploy, deployment_command, step
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Chosen
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.operate.gateways import Answer, ask
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import LeaseInfo

if TYPE_CHECKING:
    from deploy.coordination.alone import Held as Alone
    from deploy.decommission.decision import Held, Leaving
    from deploy.decommission.record import Record
    from deploy.fleet.inventory import Fleet

_LEASE_WITHIN_S = 30
"""Longest wait for the lease of a strategy that was stopped; it gives it back, or the lease runs out."""
_ANSWER_WITHIN_S = 20


class LeavingError(click.ClickException):
    """It cannot go on; the text says why, and what was done."""


@click.command()
@click.argument("host")
@click.option("--reason", required=True, help="Why; kept in the record.")
@click.option(
    "--hand-over", metavar="NAME", help="Who looks after what is open at the broker from here on; kept, too."
)
@click.option("--lost", is_flag=True, help="The host is gone for good: it cannot be stopped or asked.")
@click.option("--look", is_flag=True, help="Only say what would be done, and what stands against it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def decommission(
    host: str,
    reason: str,
    hand_over: str | None,
    lost: bool,
    look: bool,
    yes: bool,
) -> None:
    """Take an Inf host out of the fleet: stop it, fetch its data, revoke its keys, remove what it had.

    Refuses while positions or orders of its magic number are open, unless --hand-over says who looks after
    them. Interrupted, it goes on when it is called again. Exit status 0: done, or --look found nothing
    against it; 1: not.
    """
    chosen = chosen_fleet("decommission HOST")
    from deploy.decommission import record

    fleet = fleet_of(chosen.inventory)
    if host in fleet.hosts:
        made = _begin(fleet, chosen, host, reason, hand_over, lost=lost, look=look, yes=yes)
        if made is None:
            return
    else:
        found = record.unfinished(chosen.inventory, host)
        if found is None:
            known = ", ".join(fleet.in_group("inf")) or "none"
            raise click.UsageError(f"{chosen.inventory} has no Inf host {host!r}; there are {known}")
        made = found
        click.echo(f"{host} is out of the inventory already (phase {made.phase}); going on")
    _end(made, chosen.inventory)


def _begin(
    fleet: Fleet,
    chosen: Chosen,
    host: str,
    reason: str,
    hand_over: str | None,
    *,
    lost: bool,
    look: bool,
    yes: bool,
) -> Record | None:
    """Up to the inventory without the host; None when it was only to be looked at."""
    from deploy.decommission import decision
    from deploy.decommission.record import Record
    from deploy.fleet.connection import only_connection

    if host not in fleet.in_group("inf"):
        raise click.UsageError(
            f"{host} is no Inf host. A gateway whose place another takes leaves by `replace`; else a Hub or "
            "gateway leaves by hand (docs/runbook.md, Hosts that leave)"
        )
    _without(chosen.inventory, host)
    of = _look(fleet, chosen.operator, host)
    against = list(decision.refusals(of, hand_over=hand_over, lost=lost))
    _say(of, chosen.inventory, hand_over, lost=lost)
    if against:
        raise LeavingError("; ".join(against) + "; nothing was changed")
    if look:
        click.echo("nothing stands against it; nothing was changed")
        return None
    if not yes:
        click.confirm(f"{host} leaves the fleet?", abort=True)
    began = datetime.now(timezone.utc)
    made = Record(
        id=f"{began:%Y%m%dT%H%M%SZ}-{host}-{uuid.uuid4().hex[:4]}",
        inventory=str(chosen.inventory.resolve()),
        host=host,
        gateway=of.gateway,
        magic=of.magic,
        who=getpass.getuser(),
        reason=reason,
        began=began.isoformat(timespec="seconds"),
        held=str(of.held),
        hand_over=hand_over,
        lost=lost,
        connection=only_connection(fleet.hosts[host]),
    )
    with _alone(fleet, f"{host} leaves: {reason}", "call this again after that") as held:
        _leave(made, fleet, chosen, of, held.require)
    return made


def _leave(made: Record, fleet: Fleet, chosen: Chosen, of: Leaving, require: Callable[[], None]) -> None:
    """Stop it, fetch its data, take it out of the inventory. require: raises once the lock is lost."""
    from deploy.decommission import decision, on_host

    host, hand_over = made.host, made.hand_over
    made.reached("begun")
    if not made.lost:
        with step(f"stop {host}"), _as_error(host, "it still trades, nothing else was changed"):
            on_host.stop(made.connection)
        made.reached("stopped")
        require()
        held = _settled(fleet, chosen.operator, host, of)
        against = [held] if isinstance(held, str) else list(decision.of_books(of, held, hand_over=hand_over))
        if against:
            with _as_error(host, "and it does not start again"):
                on_host.start_again(made.connection)
            raise LeavingError("; ".join(against) + f"; {host} was started again, nothing else was changed")
        made.held = str(held)
        with step(f"fetch its data to {made.data.name}"), _as_error(host, "it is stopped; call this again"):
            content = on_host.fetch(made.connection)
            made.data.touch(mode=0o600)
            made.data.write_bytes(content)
            made.data_sha256 = hashlib.sha256(content).hexdigest()
        made.reached("fetched")
    require()
    with step(f"take it out of {chosen.inventory.name}, forget its keys"):
        _out(chosen.inventory, _without(chosen.inventory, host))
    made.reached("out")


def _without(inventory: Path, host: str) -> str:
    """The inventory's text without the host."""
    from deploy.decommission import inventory_file

    try:
        return inventory_file.without(inventory.read_text(encoding="utf-8"), host)
    except (OSError, UnicodeDecodeError, inventory_file.NotEditableError) as error:
        raise LeavingError(f"{error}; the inventory was not changed") from None


def _end(made: Record, inventory: Path) -> None:
    """Everything after the inventory; can be repeated."""
    from deploy.decommission import on_host

    again = f"call this again: mt5crs --inventory {inventory} decommission {made.host} --reason …"
    if made.phase == "out":
        click.echo(f"{clock()} deploy the rest, so that gateways and Hub know it no more")
        status = deploy(deployment_command(inventory))
        if status != 0:
            raise LeavingError(
                f"the deployment failed (status {status}; its own words are above): gateways still know the "
                f"keys of {made.host}{'' if made.lost else ', which is stopped'}; {again}"
            )
        made.reached("revoked")
    if not made.lost:
        with (
            _alone(fleet_of(inventory), f"{made.host} has left: {made.reason}", again),
            step(f"remove keys, code and state from {made.host}"),
            _as_error(made.host, again),
        ):
            on_host.remove(made.connection)
    made.reached("done")
    acted("host.decommissioned", host=made.host, magic=made.magic, reason=made.reason, lost=made.lost)
    left = "nothing on it was removed" if made.lost else f"on it remain: {on_host.remains(made.connection)}"
    click.echo(f"{made.host} has left; {left}")
    if not made.lost:
        click.echo(f"its data: {made.data} (SHA-256 {made.data_sha256})")
    if made.hand_over:
        click.echo(f"{made.magic} had {made.held}; {made.hand_over} looks after what is open")
    if (own := inventory.parent / "host_vars" / made.host).exists() or own.with_suffix(".yml").exists():
        click.echo(f"its variables in {own} are yours to remove")


def _look(fleet: Fleet, operator: str | None, host: str) -> Leaving:
    from deploy.decommission.decision import Leaving
    from deploy.remote import ssh

    of = fleet.hosts[host]
    magic, gateway = int(of["fleet_magic_number"]), str(of["fleet_gateway"])
    reply = ssh.run(of, ["true"], timeout_s=_ANSWER_WITHIN_S)
    books = _books(fleet, operator, gateway, magic)
    return Leaving(
        host=host,
        gateway=gateway,
        magic=magic,
        held=books.error if books.value is None else books.value[0],
        answers=None if reply.status == 0 else reply.why,
        deploying=deploying(fleet),
        successors=tuple(
            other
            for other in fleet.in_group("inf")
            if other != host
            and int(fleet.hosts[other]["fleet_magic_number"]) == magic
            and fleet.hosts[other]["fleet_gateway"] == gateway
        ),
        instances=fleet.instances_on(host),
    )


def _books(
    fleet: Fleet, operator: str | None, gateway: str, magic: int
) -> Answer[tuple[Held, list[LeaseInfo]]]:
    """What the gateway holds of a magic number, and who has its lease."""
    from deploy.decommission.decision import Held

    def call(client: GatewayClient, connection: ConnectionSettings) -> tuple[Held, list[LeaseInfo]]:
        status = client.call(requests.Status, replies.StatusState, magic=connection.magic_number)
        books = client.snapshot(magic, history_since_msc=None, whole_account=False)
        unresolved = [order for guard in status.guards if guard.magic == magic for order in guard.unresolved]
        held = Held(
            tuple(position.identifier for position in books.positions),
            tuple(order.ticket for order in books.orders),
            tuple(unresolved),
        )
        return held, [lease for lease in status.leases if lease.magic == magic and lease.remaining_ms > 0]

    targets = [target for target in of_fleet(fleet, operator) if target.name == gateway]
    if not targets:
        return Answer(gateway, None, "it is no gateway of this fleet")
    (answer,) = ask(targets, call)
    return answer


def _settled(fleet: Fleet, operator: str | None, host: str, of: Leaving) -> Held | str:
    """What is open once the stopped strategy has no lease any more; or why that is not known."""
    client = str(fleet.hosts[host]["strategy_client_name"])
    deadline = time.monotonic() + _LEASE_WITHIN_S
    with step(f"wait until {client} has no lease"):
        while True:
            answer = _books(fleet, operator, of.gateway, of.magic)
            if answer.value is None:
                return f"{of.gateway} does not say what {of.magic} holds: {answer.error}"
            held, leases = answer.value
            if all(lease.client != client for lease in leases):
                return held
            if time.monotonic() > deadline:
                return f"{client} still has the lease of {of.magic} after {_LEASE_WITHIN_S} s"
            time.sleep(0.5)


def _say(of: Leaving, inventory: Path, hand_over: str | None, *, lost: bool) -> None:
    held = f"unknown ({of.held})" if isinstance(of.held, str) else str(of.held)
    owner = ", ".join(of.successors) or hand_over or "nobody"
    on_it = "nothing can be stopped, fetched or removed on it" if lost else "it stops, its data is fetched"
    click.echo(
        f"{of.host} trades {of.magic} at {of.gateway}, which holds of it: {held}; after it: {owner}.\n"
        f"{on_it}; it leaves {inventory.name}; the rest of the fleet is deployed, so that its keys count no "
        f"more{'' if lost else '; then settings, code and state on it are removed'}."
    )


def _out(inventory: Path, without: str) -> None:
    from deploy.keys import make

    handle = inventory.with_name(f".{inventory.name}.{os.getpid()}")
    handle.write_text(without, encoding="utf-8")
    handle.chmod(inventory.stat().st_mode)
    handle.replace(inventory)
    make(inventory, prune=True)


@contextmanager
def _alone(fleet: Fleet, why: str, then: str) -> Iterator[Alone]:
    """Under the fleet's lock. LeavingError, naming who has it, when that cannot be had."""
    from deploy.coordination.alone import alone
    from deploy.coordination.fleet_lock import LockError

    try:
        with alone(fleet, "decommission", why, click.echo) as held:
            yield held
    except LockError as error:
        raise LeavingError(f"{error}; {then}") from None


@contextmanager
def _as_error(host: str, then: str) -> Iterator[None]:
    from deploy.decommission.on_host import HostError

    try:
        yield
    except HostError as error:
        raise LeavingError(f"{host}: {error}; {then}") from None
