"""`mt5crs --inventory … replace FORMER NEW ADDRESS`: another machine takes a gateway's place, under its name.

Works on the controller. One account has one gateway, so the former is stopped for good, or seen to be down,
before anything else; then its state is put on the new machine, which starts halted, the inventory is edited
and all that follows from it deployed. Positions stay at the broker all the time.
"""

from __future__ import annotations

import getpass
import ipaddress
import time
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.commands import replacement_course as course
from deploy.commands import replacement_evidence as evidence
from deploy.commands.hosts import statuses
from deploy.commands.named_fleet import chosen_fleet, fleet_of
from deploy.commands.steps import step
from mt5crs.operate.reason import a_reason
from mt5crs.settings.schema import instead

if TYPE_CHECKING:
    from deploy.decommission.renaming import Renaming
    from deploy.decommission.replaced import Record
    from deploy.fleet.inventory import Fleet


@click.command()
@click.argument("former")
@click.argument("new")
@click.argument("address")
@click.option("--reason", required=True, callback=a_reason, help="Why; kept in the records of the fleet.")
@click.option("--lost", is_flag=True, help="FORMER's machine is off for good: it cannot be stopped or asked.")
@click.option(
    "--backup", "name", metavar="BACKUP", help="With --lost: its state from this one; else the newest."
)
@click.option("--no-backup", "without", is_flag=True, help="With --lost: begin at nothing, though halted.")
@click.option("--dry", is_flag=True, help="Only say what would be done, and what stands against it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replace(
    former: str,
    new: str,
    address: str,
    reason: str,
    lost: bool,
    name: str | None,
    without: bool,
    dry: bool,
    yes: bool,
) -> None:
    """Have the machine NEW at ADDRESS be the gateway that FORMER is: same account, magic numbers, state.

    FORMER is stopped so that no boot starts it again, and its state taken along; with --lost, nothing may
    answer at its port any more, and the state is that of a backup. NEW has keys of its own and starts halted:
    look, then resume. Interrupted, it goes on when it is called again.

    Exit status 0: done, or --dry found nothing against it; 1: not.
    """
    chosen = chosen_fleet("replace FORMER NEW ADDRESS")
    from deploy.decommission import replaced

    fleet = fleet_of(chosen.inventory)
    if (name or without) and not lost:
        raise click.UsageError("--backup and --no-backup go with --lost: who answers has its own state")
    if name and without:
        raise click.UsageError("--backup and --no-backup exclude each other")
    made = None
    if former not in fleet.hosts and new in fleet.in_group("gateway"):
        made = replaced.found(chosen.inventory, former, new)
    if made is not None:
        click.echo(
            f"{new} is in the inventory in the place of {former} already (phase {made.phase}); going on"
        )
        if dry:
            return
    else:
        made = _begin(
            fleet,
            former,
            new,
            str(_address(address)),
            reason,
            lost=lost,
            name=name,
            without=without,
            dry=dry,
            yes=yes,
        )
    if made is not None:
        course.end(made, chosen.inventory)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no address; names may move unseen") from None


def _begin(
    fleet: Fleet,
    former: str,
    new: str,
    address: str,
    reason: str,
    *,
    lost: bool,
    name: str | None,
    without: bool,
    dry: bool,
    yes: bool,
) -> Record | None:
    """Up to the inventory with the new host; None when it was only to be looked at."""
    from deploy.decommission import replaced, replacing
    from deploy.decommission.renaming import Renaming
    from deploy.fleet.connection import only_connection

    _require_gateways(fleet, former, new)
    renaming = Renaming(former, new, str(fleet.hosts[former]["fleet_address"]), address)
    own = list(evidence.own_files(fleet, former, new))
    files = evidence.files_naming(fleet.inventory, renaming)
    backup, not_backup = (None, "") if not lost or without else evidence.backup_of(fleet, former, name)
    after = None if own else evidence.as_it_would_be(fleet, files)
    seen = evidence.look(fleet, after, renaming, lost=lost, own=own, backup=backup, not_backup=not_backup)
    against = list(replacing.refusals(seen, lost=lost, without_backup=without))
    if against:
        raise evidence.ReplacingError("; ".join(against) + "; nothing was changed")
    assert after is not None  # noqa: S101 -- files of its own are refused
    state = (
        "its own, once it is stopped"
        if not lost
        else f"backup {backup['id']}, {(time.time() - float(backup['time'])) / 60:.0f} minutes old"
        if backup
        else "none: the broker's books alone tell what was sent"
    )
    _say(fleet, after, renaming, files, state, lost=lost)
    if dry:
        click.echo("nothing stands against it; nothing was changed")
        return None
    if not yes:
        click.confirm(f"{new} takes the place of {former}?", abort=True)
    began = datetime.now(timezone.utc)
    made = replaced.Record(
        id=f"{began:%Y%m%dT%H%M%SZ}-{former}-{uuid.uuid4().hex[:4]}",
        inventory=str(fleet.inventory.resolve()),
        former=former,
        new=new,
        address=address,
        who=getpass.getuser(),
        reason=reason,
        began=began.isoformat(timespec="seconds"),
        state=state,
        lost=lost,
        connection=only_connection(fleet.hosts[former]),
    )
    with course.alone_for(fleet, f"{former} is replaced by {new}: {reason}"):
        course.hand_over(fleet, after, made, backup)
        made.reached("described")  # from here on the inventory may name the new host
        with step(f"write {new} into {', '.join(path.name for path in files)}, make its keys"):
            course.describe(fleet.inventory, files)
    return made


def _require_gateways(fleet: Fleet, former: str, new: str) -> None:
    from deploy.fleet.inventory import WINDOWS

    gateways = fleet.in_group("gateway")
    if former not in gateways:
        raise click.UsageError(f"{fleet.inventory} has no gateway {former}{instead(former, gateways)}")
    if new in fleet.hosts:
        raise click.UsageError(f"{new} is in the inventory already: name a machine that is not")
    if former in fleet.in_group(WINDOWS):
        raise evidence.ReplacingError(
            f"{former} has Windows: it is replaced by hand (docs/runbook.md, Hosts that leave); nothing "
            "was done"
        )


def _say(
    fleet: Fleet,
    after: Fleet,
    renaming: Renaming,
    files: Mapping[Path, str],
    state: str,
    *,
    lost: bool,
) -> None:
    """The consequences, before they are."""
    from deploy.remote import holdings
    from deploy.rollout import plan
    from deploy.rollout.batches import OrderError
    from deploy.rollout.generation import BundleError

    former, new = renaming.former, renaming.new
    inf = [host for host in fleet.in_group("inf") if fleet.hosts[host]["fleet_gateway"] == former]
    click.echo(f"{new} at {renaming.address} takes the place of {former} at {renaming.old}")
    click.echo(
        f"{former}: nothing answers at its port; nothing on it is stopped, taken or removed"
        if lost
        else f"{former}: its gateway stops, and no boot starts it again; emptied once {new} is deployed"
    )
    click.echo(f"state of {new} (journal, leases, halts, phases): {state}")
    if str(fleet.hosts[former].get("gateway_backend")) == "sim":
        click.echo(
            f"the simulated broker's books are on {former} and are not taken along: positions are gone"
        )
    click.echo(f"changed: {', '.join(str(path) for path in files)}, and the fleet's keys: {new} gets its own")
    told = {host: status for host, status in statuses(after).items() if not isinstance(status, str)}
    try:
        if not told:
            raise OrderError("no host answers")
        made = plan.make(after, told)
        click.echo("\n".join(holdings.consequences_of(made, told, fleet.inventory)))
    except (BundleError, OrderError) as error:
        click.echo(f"what it restarts is not known: {error}")
    click.echo(
        f"{', '.join(inf) or 'nobody'} trade through it: positions stay at the broker, nothing is sent until "
        f"{new} is deployed and a person has resumed it"
    )
