"""`mt5crs --inventory … replace FORMER NEW ADDRESS`: another machine takes a gateway's place, under its name.

Works on the controller. One account has one gateway, so the former is stopped for good, or seen to be down,
before anything else; then its state is put on the new machine, which starts halted, the inventory is edited
and all that follows from it deployed. Positions stay at the broker all the time.
"""

from __future__ import annotations

import base64
import getpass
import ipaddress
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.hosts import deploying, statuses
from deploy.commands.named_fleet import chosen_fleet, fleet_of
from deploy.commands.steps import deploy, deployment_command, step
from mt5crs.operate.acts import acted
from mt5crs.operate.reason import a_reason
from mt5crs.settings.schema import instead

if TYPE_CHECKING:
    from deploy.decommission.renaming import Renaming
    from deploy.decommission.replaced import Record
    from deploy.fleet.inventory import Fleet

_ANSWER_WITHIN_S = 20
_PORT_WITHIN_S = 3
_KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()
except OSError:
    print("silent")
else:
    print("answers")
"""
_OCCUPIED = """
test ! -e /opt/mt5crs/gateway/current || { echo /opt/mt5crs/gateway; exit 0; }
test "$(systemctl is-active mt5crs-gateway.service)" != active || echo mt5crs-gateway.service
"""


class ReplacingError(click.ClickException):
    """It cannot go on; the text says why, and what was done."""


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
        _end(made, chosen.inventory)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no address; names may move unseen") from None


# ---- before anything is changed ----


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
    own = list(_own_files(fleet, former, new))
    files = _files(fleet.inventory, renaming)
    backup, not_backup = (None, "") if not lost or without else _backup(fleet, former, name)
    after = None if own else _after(fleet, files)
    seen = _look(fleet, after, renaming, lost=lost, own=own, backup=backup, not_backup=not_backup)
    against = list(replacing.refusals(seen, lost=lost, without_backup=without))
    if against:
        raise ReplacingError("; ".join(against) + "; nothing was changed")
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
    with _alone(fleet, f"{former} is replaced by {new}: {reason}"):
        _hand_over(fleet, after, made, backup)
        made.reached("described")  # from here on the inventory may name the new host
        with step(f"write {new} into {', '.join(path.name for path in files)}, make its keys"):
            _describe(fleet.inventory, files)
    return made


def _require_gateways(fleet: Fleet, former: str, new: str) -> None:
    from deploy.fleet.inventory import WINDOWS

    gateways = fleet.in_group("gateway")
    if former not in gateways:
        raise click.UsageError(f"{fleet.inventory} has no gateway {former}{instead(former, gateways)}")
    if new in fleet.hosts:
        raise click.UsageError(f"{new} is in the inventory already: name a machine that is not")
    if former in fleet.in_group(WINDOWS):
        raise ReplacingError(
            f"{former} has Windows: it is replaced by hand (docs/runbook.md, Hosts that leave); nothing "
            "was done"
        )


def _own_files(fleet: Fleet, former: str, new: str) -> Iterator[str]:
    """Variables of the former alone, of which the new has none."""
    from deploy.fleet.vault_password import PROJECT

    for directory in dict.fromkeys((fleet.inventory.resolve().parent, PROJECT)):
        for suffix in ("", ".yml", ".yaml", ".json"):
            one = directory / "host_vars" / f"{former}{suffix}"
            if one.exists() and not one.with_name(f"{new}{suffix}").exists():
                yield str(one)


def _files(inventory: Path, renaming: Renaming) -> dict[Path, str]:
    """Every file that names the former as a gateway → its text then. ReplacingError: by hand."""
    from deploy.decommission.inventory_file import NotEditableError
    from deploy.decommission.renaming import REFERENCE
    from deploy.fleet.layers import layers
    from deploy.fleet.vault_password import PROJECT

    whole = inventory.resolve()
    named = {
        (PROJECT / layer.file).resolve(): layer.encrypted
        for of in layers(inventory).values()
        for layer in of
        if layer.values.get(REFERENCE) == renaming.former
    }
    found: dict[Path, str] = {}
    for path in (whole, *sorted(named.keys() - {whole})):
        try:
            if named.get(path):
                raise NotEditableError(f"it is encrypted; write {renaming.new} for {REFERENCE} yourself")
            text = path.read_text(encoding="utf-8")
            found[path] = renaming.in_inventory(text) if path == whole else renaming.in_variables(text)
        except (OSError, UnicodeDecodeError, NotEditableError) as error:
            raise ReplacingError(f"{path}: {error}; nothing was changed") from None
    return found


def _after(fleet: Fleet, files: Mapping[Path, str]) -> Fleet:
    """The fleet as it would be, keys included; ReplacingError with all that a deployment would refuse."""
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.fleet.settings import check
    from deploy.keys import KeysError, would_make
    from deploy.policy.enforcing import verdict_of

    try:
        keys = would_make(fleet.inventory, files[fleet.inventory.resolve()]).after
        after = resolve(fleet.inventory, instead={**files, **keys})
        problems = check(after) or verdict_of(after, identified=False).refusing
    except (InventoryError, KeysError) as error:
        problems = [str(error)]
    if problems:
        raise ReplacingError("; ".join(problems) + "; nothing was changed")
    return after


def _backup(fleet: Fleet, former: str, name: str | None) -> tuple[dict[str, Any] | None, str]:
    """The newest backup with a copy of the former, or that of this name; or none, and why."""
    from deploy.backup import storing

    try:
        if name:
            one = storing.chosen(fleet, name)
            if former not in one["hosts"]:
                return None, f"{one['id']} has none"
            return one, ""
        fitting = [one for one in storing.listed(fleet)["backups"] if former in one["hosts"]]
    except storing.BackupError as error:
        return None, str(error)
    return (fitting[-1], "") if fitting else (None, "the Hub keeps none")


def _look(
    fleet: Fleet,
    after: Fleet | None,
    renaming: Renaming,
    *,
    lost: bool,
    own: list[str],
    backup: Mapping[str, Any] | None,
    not_backup: str,
) -> Any:
    """What hosts say, of which some may stand against it."""
    from deploy.decommission.replacing import Seen
    from deploy.remote import ssh

    there = ssh.run(fleet.hosts[renaming.former], ["true"], timeout_s=_ANSWER_WITHIN_S)
    not_new, occupied = None, ""
    if after is not None:
        reply = ssh.run(after.hosts[renaming.new], ["sh", "-c", _OCCUPIED], timeout_s=_ANSWER_WITHIN_S)
        not_new = None if reply.status == 0 else reply.why
        occupied = reply.output.strip() if reply.status == 0 else ""
    return Seen(
        former=renaming.former,
        new=renaming.new,
        address=renaming.address,
        not_former=None if there.status == 0 else there.why,
        ports=_ports(fleet, renaming.former) if lost else {},
        not_new=not_new,
        occupied=occupied,
        backup=str(backup["id"]) if backup else None,
        not_backup=not_backup,
        deploying=deploying(fleet),
        own_files=own,
    )


def _ports(fleet: Fleet, former: str) -> dict[str, bool | str]:
    """Who asks → whether anything answers there at the former gateway's port; the controller and its Inf."""
    from deploy.remote import ssh

    of = fleet.hosts[former]
    address, port = str(of["fleet_address"]), str(of["gateway_port"])

    def ask(host: str) -> bool | str:
        words = ["python3", "-c", _KNOCK, address, port, str(_PORT_WITHIN_S)]
        reply = ssh.run(fleet.hosts[host], words, timeout_s=_ANSWER_WITHIN_S)
        return reply.output.strip() == "answers" if reply.status == 0 else reply.why

    hosts = [host for host in fleet.in_group("inf") if fleet.hosts[host]["fleet_gateway"] == former]
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        told = dict(zip((f"to {host}" for host in hosts), pool.map(ask, hosts), strict=True))
    try:
        socket.create_connection((address, int(port)), _PORT_WITHIN_S).close()
        return {"from here": True, **told}
    except OSError:
        return {"from here": False, **told}


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


# ---- done ----


def _hand_over(fleet: Fleet, after: Fleet, made: Record, backup: Mapping[str, Any] | None) -> None:
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


def _describe(inventory: Path, files: Mapping[Path, str]) -> None:
    """The inventory first: once it names the new host, another call goes on from here."""
    from deploy.fleet.restoring import write
    from deploy.keys import make

    for path, text in files.items():
        write(path, text)
    make(inventory, prune=True)


def _end(made: Record, inventory: Path) -> None:
    """Everything after the inventory; can be repeated."""
    call = f"mt5crs --inventory {inventory} replace {made.former} {made.new} {made.address} --reason …"
    again = f"call this again: {call}"
    if made.phase == "described":
        _describe(inventory, _left(inventory, made))
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
    return {path: text for path, text in _files(whole, renaming).items() if path != whole}


def _empty(made: Record, again: str) -> None:
    """Remove the gateway from the former machine; one that is lost is, when it answers after all."""
    from deploy.decommission import on_host
    from deploy.remote import ssh

    if made.lost and ssh.run(made.connection, ["true"], timeout_s=_ANSWER_WITHIN_S).status != 0:
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
def _alone(fleet: Fleet, why: str) -> Iterator[None]:
    """Under the fleet's lock. ReplacingError, naming who has it, when that cannot be had."""
    from deploy.coordination.alone import alone
    from deploy.coordination.fleet_lock import LockError

    try:
        with alone(fleet, "replace", why, click.echo):
            yield
    except LockError as error:
        raise ReplacingError(f"{error}; call this again after that") from None
