"""`mt5crs --inventory … migrate HOST ADDRESS`: a host gets another address, while strategies run.

Works on the controller. The inventory is the only place that knows addresses: it is edited, all that follows
from it is deployed, every link is looked at, and either all of it is kept or all of it is restored. A journal
beside the inventory says how far it is; whoever calls again goes on, or takes it back.
"""

from __future__ import annotations

import getpass
import ipaddress
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands import migration_evidence as evidence
from deploy.commands.config import books_of
from deploy.commands.hosts import deploying, statuses
from deploy.commands.migration_course import MoveError, go_on
from deploy.commands.named_fleet import chosen_fleet, fleet_of
from deploy.commands.preflight import decision_of
from mt5crs.operate.chosen import Chosen
from mt5crs.operate.connection import json_option
from mt5crs.operate.reason import a_reason
from mt5crs.settings.schema import instead

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet
    from deploy.migration.decision import Seen
    from deploy.migration.journal import Journal


@click.command()
@click.argument("host")
@click.argument("address")
@click.option(
    "--reason",
    default="address migration",
    show_default=True,
    callback=a_reason,
    help="Why; kept in the records of the fleet.",
)
@click.option("--dry", is_flag=True, help="Only say what would be done, and what stands against it.")
@click.option("--undo", is_flag=True, help="Take a move back that was interrupted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def migrate(host: str, address: str, reason: str, dry: bool, undo: bool, yes: bool, as_json: bool) -> None:
    """Give HOST another ADDRESS: look, edit the inventory, deploy, look at every link; keep or restore all.

    HOST has both addresses meanwhile, and sends from the new one. Interrupted, it goes on when it is called
    again; with --undo it takes back what was done. When the deployment fails, or a link does not work
    afterwards, it takes all back by itself. Ends with a report.

    Exit status 0: moved, or --dry found nothing against it; 1: not.
    """
    chosen = chosen_fleet("migrate HOST ADDRESS")
    from deploy.migration import journal

    try:
        with journal.held(chosen.inventory):
            made = journal.found(chosen.inventory)
            if made is not None:
                _require_same(made, host, address)
                if dry:
                    click.echo(f"under way since {made.began}, phase {made.phase}; nothing was done now")
                    return
                made.resumed += 1
                click.echo(f"{host} is moving already (phase {made.phase}); going on", err=True)
            elif undo:
                raise click.UsageError("no move is under way; to go back, migrate to the former address")
            else:
                made = _begin(chosen, host, address, reason, dry=dry, yes=yes)
            if made is None:
                return
            go_on(made, chosen, undo=undo, as_json=as_json)
    except journal.JournalError as error:
        raise MoveError(str(error)) from None
    except OSError as error:
        raise MoveError(f"{error}; mend that, then call this again") from None


def _require_same(made: Journal, host: str, address: str) -> None:
    if (made.host, made.new) != (host, str(_address(address))):
        raise MoveError(
            f"{made.host} is moving to {made.new} since {made.began} (phase {made.phase}): finish it with "
            f"`migrate {made.host} {made.new}`, or take it back with --undo"
        )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no address; names may move unseen") from None


# ---- before anything is changed ----


def _begin(chosen: Chosen, host: str, address: str, reason: str, *, dry: bool, yes: bool) -> Journal | None:
    """Look, say the consequences, ask, write the journal; None when it was only to be looked at."""
    from deploy.fleet.inventory import WINDOWS
    from deploy.fleet.settings import KNOWN_GROUPS
    from deploy.migration import decision, inventory_file, journal, known_hosts

    fleet, new = fleet_of(chosen.inventory), str(_address(address))
    if host not in fleet.hosts:
        raise click.UsageError(f"{chosen.inventory} has no host {host}{instead(host, fleet.hosts)}")
    if host in fleet.in_group(WINDOWS) or not any(host in fleet.in_group(name) for name in KNOWN_GROUPS):
        raise MoveError(
            f"{host} is no Linux host of the fleet: its address is changed by hand; nothing was done"
        )
    machine = fleet.machine_of(host)
    if machine != host:
        raise MoveError(f"{host} runs on {machine}; migrate {machine}, it goes along; nothing was done")
    old = str(fleet.hosts[host]["fleet_address"])
    if new == old:
        raise click.UsageError(f"{host} has {new} already")
    try:
        text = inventory_file.moved(
            chosen.inventory.read_text(encoding="utf-8"), fleet.on_machine(host), old, new
        )
        file, keys, there = _host_keys(fleet, host, old, new)
    except (UnicodeDecodeError, inventory_file.NotEditableError, known_hosts.KnownHostsError) as error:
        raise MoveError(f"{error}; nothing was changed") from None
    after = _after(chosen, text)  # no host is asked for what it refuses
    before = decision_of(fleet, chosen.operator)
    seen = _look(fleet, host, old, new, otherwise=bool(there) and set(there) != set(keys))
    windows = fleet.in_group(WINDOWS)
    lines = [
        line
        for line in evidence.findings(before, evidence.UNCHANGED)
        if line.partition(":")[0] not in windows  # who cannot be asked is told by nobody
    ]
    against = list(decision.refusals(replace(seen, undeployed=tuple(lines))))
    if against:
        raise MoveError("; ".join(against) + "; nothing was changed")
    _say(fleet, after, host, old, new, text, chosen.inventory)
    if dry:
        click.echo("nothing stands against it; nothing was changed")
        return None
    if not yes:
        click.confirm(f"{host} moves to {new}?", abort=True, err=True)
    began = datetime.now(timezone.utc)
    port = fleet.hosts[host].get("ansible_port")
    made = journal.Journal(
        id=f"{began:%Y%m%dT%H%M%SZ}-{host}-{uuid.uuid4().hex[:4]}",
        inventory=str(chosen.inventory.resolve()),
        host=host,
        old=old,
        new=new,
        who=getpass.getuser(),
        reason=reason,
        began=began.isoformat(timespec="seconds"),
        known_hosts=str(file) if file else "",
        added=known_hosts.lines_for(known_hosts.named(new, int(port) if port else None), keys, there),
        held=evidence.passing(before, evidence.HOLDING),
        peers=_peers(fleet, host),
        broker_msc=evidence.broker_times(fleet, chosen.operator),
    )
    made.write()
    return made


def _host_keys(fleet: Fleet, host: str, old: str, new: str) -> tuple[Path | None, list[str], list[str]]:
    """The file of known hosts, the host's keys in it, and those that the new address has there."""
    from deploy.migration import known_hosts

    name, port = fleet.hosts[host].get("fleet_ssh_known_hosts"), fleet.hosts[host].get("ansible_port")
    if not name:
        return None, [], []
    file, number = Path(str(name)).expanduser().resolve(), int(port) if port else None
    keys = known_hosts.keys_of(file, known_hosts.named(old, number))
    if not keys:
        raise known_hosts.KnownHostsError(f"{file} has no key of {host} under {old}; its key is not known")
    return file, keys, known_hosts.keys_of(file, known_hosts.named(new, number))


def _after(chosen: Chosen, text: str) -> Fleet:
    """The fleet as it would be; MoveError with all that a deployment would refuse it for."""
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.fleet.settings import check
    from deploy.policy.enforcing import verdict_of

    try:
        after = resolve(chosen.inventory, instead={chosen.inventory: text})
        problems = check(after) or verdict_of(after, identified=False).refusing
    except InventoryError as error:
        problems = [str(error)]
    if problems:
        raise MoveError("; ".join(problems) + "; nothing was changed")
    return after


def _look(fleet: Fleet, host: str, old: str, new: str, *, otherwise: bool) -> Seen:
    """What hosts say, of which some may stand against it."""
    from deploy.migration import looking
    from deploy.migration.decision import Seen

    peers = _peers(fleet, host)
    of_new, not_new = looking.at_new(fleet.hosts[host], new)
    return Seen(
        host=host,
        old=old,
        new=new,
        of_old=looking.of_host(fleet.hosts[host], peers),
        of_new=of_new,
        not_new=not_new,
        known_otherwise=otherwise,
        deploying=deploying(fleet),
    )


def _peers(fleet: Fleet, host: str) -> list[str]:
    """Addresses that a host connects to itself: of an Inf its gateway, of a Hub everybody. Pure."""
    if host in fleet.in_group("inf"):
        gateways = {str(fleet.hosts[one]["fleet_gateway"]): None for one in fleet.on_machine(host)}
        return [str(fleet.hosts[gateway]["fleet_address"]) for gateway in gateways]
    if host in fleet.in_group("hub"):
        return [str(values["fleet_address"]) for name, values in fleet.hosts.items() if name != host]
    return []


def _say(fleet: Fleet, after: Fleet, host: str, old: str, new: str, text: str, inventory: Path) -> None:
    """The consequences, before they are."""
    from deploy.remote import holdings
    from deploy.rollout import plan
    from deploy.rollout.batches import OrderError
    from deploy.rollout.generation import BundleError

    along = "".join(f", {one} with it" for one in fleet.instances_on(host))
    click.echo(f"{host} moves from {old} to {new}{along}", err=True)
    changed = _changed_lines(inventory.read_text(encoding="utf-8"), text)
    click.echo(
        f"{inventory}: line {', '.join(changed)}; the file of known hosts gets its key under {new}", err=True
    )
    for place in _elsewhere(fleet, old):
        click.echo(f"{place} has {old}, too, and stays as it is", err=True)
    told = {name: status for name, status in statuses(fleet).items() if not isinstance(status, str)}
    try:
        made = plan.make(after, told)
        click.echo("\n".join(holdings.consequences_of(made, told, inventory)), err=True)
    except (BundleError, OrderError) as error:
        click.echo(f"what it restarts is not known: {error}", err=True)
    if _peers(fleet, host):
        click.echo(
            f"{host} sends from {new} once it is deployed, by routes that last until its next start; a "
            "connection that ends in the seconds before its peers know the address is refused",
            err=True,
        )
    hosts = evidence.links_of(fleet, host)
    for one, held in books_of(fleet, hosts).items():
        click.echo(
            f"{one}: {held}; positions stay at the broker, its strategy sends nothing while it restarts",
            err=True,
        )
    if host in fleet.in_group("gateway"):
        click.echo(
            f"{host} listens at both addresses from its step until it is confirmed: the Hub, halts from here "
            f"and {', '.join(hosts) or 'nobody else'} reach it before their own steps and after",
            err=True,
        )


def _changed_lines(before: str, after: str) -> list[str]:
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return [str(number) for number, (one, other) in enumerate(pairs, 1) if one != other]


def _elsewhere(fleet: Fleet, old: str) -> Iterator[str]:
    """Files of variables that name the address in so many words, beside the inventory's own line."""
    from deploy.fleet.layers import layers, origin

    places = set()
    for of in layers(fleet.inventory).values():
        for layer in of:
            for name, value in layer.values.items():
                if name not in ("ansible_host", "ansible_ssh_host", "fleet_address") and _names(value, old):
                    places.add(f"{name} ({origin(layer, name)})")
    yield from sorted(places)


def _names(value: Any, address: str) -> bool:
    if isinstance(value, dict):
        return any(_names(one, address) for one in (*value, *value.values()))
    if isinstance(value, list):
        return any(_names(one, address) for one in value)
    return isinstance(value, str) and address in value.replace(",", " ").replace("/", " ").split()
