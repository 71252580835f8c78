"""`mt5crs --inventory … backup`: copies of a whole fleet, kept on the Hub, and proven by restoring them."""

from __future__ import annotations

import getpass
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.named_fleet import chosen_fleet, fleet_of, of_fleet
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Chosen
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.gateways import ask
from mt5crs.operate.report import table
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import Deal
from mt5crs.settings.schema import instead

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet
    from mt5crs.gateway.journal import Entry

_PAGE = 10_000
_BACK_MS = 5 * 60_000
"""So much earlier than its sending an execution may be dated."""


@click.group()
def backup() -> None:
    """Copy every host while it trades, keep the copies on the Hub, and prove that they can be restored.

    On the controller: `mt5crs --inventory inventory/<environment>.yml backup run`. Copies are encrypted with
    the environment's vault password; the Hub cannot read them.
    """
    chosen_fleet("backup …")


def _fleet() -> Fleet:
    chosen = click.get_current_context().find_root().obj
    assert isinstance(chosen, Chosen)  # noqa: S101  (the group above has seen to it)
    return fleet_of(chosen.inventory)


def _or_fail(call: Callable[[], Any]) -> Any:
    """What a call gives; what cannot be done is one sentence and exit status 1."""
    from deploy.backup.copies import CopyError
    from deploy.backup.storing import BackupError
    from deploy.fleet.vault_password import VaultPasswordMissingError

    try:
        return call()
    except (BackupError, CopyError, VaultPasswordMissingError) as error:
        raise click.ClickException(str(error)) from None


def made_of(fleet: Fleet) -> dict[str, Any]:
    """Back a fleet up; the metadata, with hosts that are `missing`. ClickException: none was made."""
    from deploy.backup import storing

    made: dict[str, Any] = _or_fail(lambda: storing.run(fleet, getpass.getuser()))
    return made


@backup.command()
@json_option
def run(as_json: bool) -> None:
    """Back every host up: configuration, journals and records, newest events. Services go on.

    Backups older than fleet_backup_keep_days are removed. Exit status 1: a host is missing in it, or none was
    made.
    """
    made = made_of(_fleet())
    if as_json:
        click.echo(json.dumps(made))
    else:
        size = sum(of["bytes"] for of in made["hosts"].values()) / 1e6
        click.echo(f"backup {made['id']}: {len(made['hosts'])} hosts, {size:.1f} MB, {made['seconds']} s")
        for name in made["removed"]:
            click.echo(f"removed {name}, which was too old")
    for host, why in made["missing"].items():
        click.echo(f"error: {host} is not in it: {why}", err=True)
    raise SystemExit(int(bool(made["missing"])))


@backup.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the backups that the Hub keeps, and which one was last proven by a drill."""
    from deploy.backup import storing

    fleet = _fleet()
    told = _or_fail(lambda: storing.listed(fleet))
    if as_json:
        click.echo(json.dumps(told))
        return
    proven = told["proven"] or {}
    rows = [
        (
            one["id"],
            _age(time.time() - float(one["time"])),
            ", ".join(one["hosts"]),
            ", ".join(one["missing"]) or "none",
            "proven" if one["id"] == proven.get("id") else "-",
        )
        for one in told["backups"]
    ]
    click.echo(table(("BACKUP", "AGE", "HOSTS", "MISSING", "DRILL"), rows))
    last = f"{_age(time.time() - float(proven['at']))} ago" if proven else "never"
    click.echo(f"a restore was last proven: {last}")


def _age(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.0f} d"


@backup.command()
@click.argument("name", metavar="[BACKUP]", required=False)
def verify(name: str | None) -> None:
    """Fetch a BACKUP (the newest), decrypt it and check every file in it."""
    from deploy.backup import copies, storing

    fleet = _fleet()
    of = _or_fail(lambda: storing.chosen(fleet, name))
    for host in of["hosts"]:
        files = _or_fail(lambda host=host: copies.files_of(storing.copy_of(fleet, of, host)))  # type: ignore[misc]
        with tempfile.TemporaryDirectory(prefix="mt5crs-verify-") as scratch:
            databases = _or_fail(lambda files=files, at=Path(scratch): copies.restored(files, at))  # type: ignore[misc]
        click.echo(f"{host}: {len(files)} files as backed up, {len(databases)} databases intact")


@backup.command()
@click.argument("name", metavar="[BACKUP]", required=False)
@json_option
def drill(name: str | None, as_json: bool) -> None:
    """Restore a BACKUP (the newest) into a scratch place and compare its journals with the broker's books.

    The Hub remembers when it last succeeded; `preflight` wants it within a day. Exit status 1: it is not
    proven.
    """
    from deploy.backup import storing

    fleet = _fleet()
    began = time.time()
    of = _or_fail(lambda: storing.chosen(fleet, name))
    found = _or_fail(lambda: _drilled(fleet, of))
    if of["missing"]:
        found["problems"] += [f"{host} is not in the backup: {why}" for host, why in of["missing"].items()]
    record = {
        "id": of["id"],
        "at": time.time(),
        "by": getpass.getuser(),
        "seconds": round(time.time() - began, 1),
    }
    record |= {key: found[key] for key in ("files", "databases", "submissions", "orders", "restorations")}
    if not found["problems"]:
        _or_fail(lambda: storing.call(fleet, storing.hub_of(fleet), "prove", stdin=json.dumps(record)))
    if as_json:
        click.echo(json.dumps(record | {"proven": not found["problems"], "problems": found["problems"]}))
    else:
        click.echo(
            f"{of['id']}: {found['files']} files and {found['databases']} databases restored, "
            f"{found['submissions']} submissions read again, {found['orders']} executed orders compared with "
            f"the broker's books; {record['seconds']} s"
        )
        if found["restorations"]:
            click.echo(f"restored {found['restorations']} times: orders lost then are known to be missing")
    for problem in found["problems"]:
        click.echo(f"error: {problem}", err=True)
    raise SystemExit(int(bool(found["problems"])))


def _drilled(fleet: Fleet, of: Mapping[str, Any]) -> dict[str, Any]:
    from deploy.backup import copies, storing
    from mt5crs.gateway.journal import replayed, restorations
    from mt5crs.service.database import UnusableError

    found: dict[str, Any] = {
        "files": 0,
        "databases": 0,
        "submissions": 0,
        "orders": 0,
        "restorations": 0,
        "problems": [],
    }
    for host in of["hosts"]:
        files = copies.files_of(storing.copy_of(fleet, of, host))
        with tempfile.TemporaryDirectory(prefix="mt5crs-drill-") as scratch:
            databases = copies.restored(files, Path(scratch))
            found["files"] += len(files)
            found["databases"] += len(databases)
            if host not in fleet.in_group("gateway"):
                continue
            try:
                journal = Path(scratch) / "state/gateway/journal.db"
                entries = [entry for _, entry in replayed(journal)]
                restored = restorations(journal)
            except UnusableError as error:
                found["problems"].append(f"{host}: {error}")
                continue
        orders, problems = _against_the_books(fleet, host, entries, restored)
        found["submissions"] += len(entries)
        found["restorations"] += len(restored)
        found["orders"] += orders
        found["problems"] += [f"{host}: {problem}" for problem in problems]
    return found


def _against_the_books(
    fleet: Fleet, host: str, entries: list[Entry], restored: list[int]
) -> tuple[int, list[str]]:
    """How many executed orders were compared, and what does not agree."""
    from deploy.backup import proving

    of = proving.compared(entries)

    def look(client: GatewayClient, connection: ConnectionSettings) -> dict[int, list[Deal]]:  # noqa: ARG001
        return {magic: _deals(client, magic, orders[0].sent_msc - _BACK_MS) for magic, orders in of.items()}

    chosen = click.get_current_context().find_root().obj
    targets = [one for one in of_fleet(fleet, chosen.operator) if one.name == host]
    answers = ask(targets, look)
    deals = next((answer.value for answer in answers if answer.value is not None), None)
    if deals is None:
        why = answers[0].error if answers else "it is no gateway of this fleet"
        return 0, [f"the broker's books could not be read: {why}"]
    known = [entry.comment_id for entry in entries]
    return sum(map(len, of.values())), proving.problems(of, deals, known, proving.gaps(entries, restored))


def _deals(client: GatewayClient, magic: int, since_msc: int) -> list[Deal]:
    """All deals of a magic number since a broker time."""
    found: dict[int, Deal] = {}
    while True:
        page = client.call(
            requests.HistoryQuery, replies.HistoryState, magic=magic, since_msc=max(0, since_msc), limit=_PAGE
        )
        before = len(found)
        found |= {deal.ticket: deal for deal in page.deals}
        if page.complete or len(found) == before:
            return list(found.values())
        since_msc = max(deal.time_msc for deal in page.deals)


@backup.command()
@click.argument("host")
@click.argument("service", type=click.Choice(["gateway", "reconciler", "strategy"]))
@click.option("--backup", "name", metavar="BACKUP", help="Which one; by default the newest.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(host: str, service: str, name: str | None, yes: bool) -> None:
    """Put the state of SERVICE on HOST back. The service has to be stopped; what is there now is kept aside.

    Orders that only the present files know are taken over if they can be read. A restored gateway is halted,
    hands out no lease of before, and looks an id that it does not know up in the broker's books before it
    sends it.
    """
    import base64

    from deploy.backup import storing

    fleet = _fleet()
    if host not in fleet.hosts:
        raise click.UsageError(f"there is no host {host}{instead(host, fleet.hosts)}")
    of = _or_fail(lambda: storing.chosen(fleet, name))
    content = _or_fail(lambda: storing.copy_of(fleet, of, host))
    age = _age(time.time() - float(of["time"]))
    if not yes:
        click.confirm(f"Put {service} of {host} back to {of['id']}, {age} old?", abort=True)
    sent = base64.b64encode(content).decode()
    there = fleet.service_on(host, service)
    told = _or_fail(lambda: storing.call(fleet, host, "restore", there, str(of["id"]), stdin=sent))
    acted("backup.restored", host=host, service=service, backup=str(of["id"]))
    click.echo(f"{host}: {', '.join(told['restored'])} of {service} are those of {of['id']}, {age} old")
    click.echo(f"what was there is in {told['before']}")
    for file, taken in told["taken_over"].items():
        click.echo(
            f"{file}: " + ("what was sent since was taken over" if taken else "what was sent since is lost")
        )
    click.echo(f"next: systemctl start mt5crs-{there} on {host}" + (_THEN if service == "gateway" else ""))


_THEN = "; compare positions with the terminal, then `mt5crs … resume --reason …` (it is halted)"
