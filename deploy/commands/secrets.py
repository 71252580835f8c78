"""`mt5crs --inventory … secrets`: who holds which key, what it lets them do, what is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.commands.audit_log import log_of
from deploy.commands.env_modes import readable_by_others_in_the_fleet
from deploy.commands.named_fleet import chosen_fleet, fleet_of, inventory_named
from deploy.commands.rotate import rotate
from deploy.commands.vault import edit, init, view
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import table
from mt5crs.settings.schema import instead
from mt5crs_release.records.audit_chain import records_of, verify

if TYPE_CHECKING:
    from deploy.policy.holders import Age

GOOD, UNKNOWN, WRONG = 0, 1, 2
_SOON_DAYS = 30


@click.group()
def secrets() -> None:
    """Tell who holds which secret of a fleet, what is wrong with one, and change them.

    On the controller: `mt5crs --inventory inventory/<environment>.yml secrets who`. Values are shown by
    `view --show NAME` alone.
    """
    chosen_fleet("secrets …")


for _each in (init, view, edit, rotate):
    secrets.add_command(_each)


@secrets.command()
@json_option
def who(as_json: bool) -> None:
    """Show every key, password and signer: where it is, what it lets its holder do, from where.

    By the inventory; every secret is also in the vault, and who has its password has all. Asks no host.
    """
    from deploy.policy.holders import holders

    found = holders(fleet_of(inventory_named()))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    rows = [(one.name, one.kind, one.held, one.may, one.accepted_from) for one in found]
    click.echo(table(("NAME", "KIND", "HELD BY", "MAY", "ACCEPTED FROM"), rows))


@secrets.command()
@click.option(
    "--max-age",
    type=click.IntRange(1),
    metavar="DAYS",
    help="Older keys and passwords are to be replaced; otherwise fleet_secret_max_age_days says it.",
)
@json_option
def check(max_age: int | None, as_json: bool) -> None:
    """Look for secrets that are old, past their date, weak, shared, in plain files, or readable by others.

    Asks every Linux host for the modes of its `.env`, and the Hub's audit log when each key was last changed.
    Exit status 0: all well; 2: something is wrong; 1: something could not be looked at.
    """
    from deploy.fleet.inventory import InventoryError
    from deploy.policy import expiry
    from deploy.policy.enforcing import verdict_of
    from deploy.policy.gathering import vault_texts
    from deploy.policy.holders import holders

    fleet = fleet_of(inventory_named())
    try:
        findings = verdict_of(fleet, identified=False).findings
    except InventoryError as error:
        raise click.ClickException(str(error)) from None
    wrong = [
        f"{one.rule} {one.scope}: {one.text}{f' (waived: {one.waiver})' if one.waiver else ''}"
        for one in findings
        if one.rule.startswith("SEC-")
    ]
    waived = sum(bool(one.waiver) for one in findings if one.rule.startswith("SEC-"))
    files, modes = readable_by_others_in_the_fleet(fleet)
    unknown = [line for line in modes if "could not be looked at" in line]
    wrong += [line for line in modes if line not in unknown]
    known, why = _ages()
    if why:
        unknown.append(f"how old the keys are: {why}")
    names = {one.variable: one.name for one in holders(fleet) if one.variable}
    names[expiry.VAULT_PASSWORD] = "the vault's password"
    settings, now = list(fleet.hosts.values()), datetime.now(timezone.utc)
    ends = {name: max_age or expiry.max_age(settings, name) for name in names}
    warn = max((int(of.get("fleet_secret_warn_days", _SOON_DAYS)) for of in settings), default=_SOON_DAYS)
    old, soon = judged(names, known, ends, now, warn) if not why else ([], [])
    for one in expiry.due(settings, now.date()):  # those that have passed are among the findings
        soon += [] if one.passed else [one.text]
    wrong += _unfinished(fleet.inventory, expiry.dates(settings), {*names, *vault_texts(fleet)})
    began = None if why else known_since(names, known)
    if as_json:
        told = {"wrong": [*wrong, *old], "soon": soon, "unknown": unknown, "files": files}
        click.echo(json.dumps(told))
    else:
        for line in [*wrong, *old, *soon]:
            click.echo(line)
        for line in unknown:
            click.echo(f"unknown: {line}", err=True)
        if not (wrong or old or unknown):
            aged = "" if began else ", none too old"
            click.echo(
                f"{len(names)} keys and passwords: none is weak, shared, in a plain file{aged}; "
                f"{files} .env files of hosts are their owners' alone"
            )
        if began:
            click.echo(f"how old they are is known since {began:%Y-%m-%d} only, when the audit log began")
    raise SystemExit(WRONG if len(wrong) > waived or old else UNKNOWN if unknown else GOOD)


def _ages() -> tuple[Mapping[str, Age], str]:
    """Since when each secret is what it is, or why that is not known."""
    from deploy.policy.holders import ages

    try:
        log = log_of(None)
    except click.ClickException as error:
        return {}, error.message
    if verify(log.records, log.head, log.snapshots, log.witnesses).findings:
        return {}, "the audit log is broken, see `audit-log verify`"
    snapshots = [json.loads(line) for line in log.snapshots.splitlines()[:1]]
    if not snapshots:
        return {}, "no configuration was deployed since there is an audit log"
    return ages(records_of(log.records), snapshots), ""


def known_since(names: Mapping[str, str], ages: Mapping[str, Age]) -> datetime | None:
    """Since when the log knows the secrets that may be older than it; None: there are none. Pure."""
    return min((age.since for name in names if (age := ages.get(name)) and not age.exact), default=None)


def _unfinished(inventory: Path, dates: Collection[str], known: Collection[str]) -> Iterator[str]:
    """What a change of the vault's password left behind, and dates of secrets that there are not."""
    from deploy.fleet.vault_password import next_file, password_file

    if next_file(password_file(inventory)).exists():
        yield "a change of the vault's password was interrupted: `secrets rotate vault` finishes it"
    for name in sorted(set(dates) - set(known)):
        yield f"fleet_secret_expiry names {name}, and no secret is called so{instead(name, known)}"


def judged(
    names: Mapping[str, str],
    ages: Mapping[str, Age],
    ends: Mapping[str, int],
    now: datetime,
    warn: int = _SOON_DAYS,
) -> tuple[list[str], list[str]]:
    """Sentences on secrets that are too old, and on those that soon will be. Pure.

    ends: days that each may be used. warn: days before

    A secret that the log does not know yet is new: it was never deployed.
    """
    old, soon = [], []
    for variable, name in names.items():
        age = ages.get(variable)
        if age is None:
            continue
        days, max_age = (now - age.since).days, ends[variable]
        least = "" if age.exact else "at least "
        if days > max_age:
            old.append(f"{name} is {least}{days} days old, more than {max_age}: replace it")
        elif days > max_age - min(warn, max_age // 2):
            soon.append(f"{name} is {least}{days} days old: replace it within {max_age - days} days")
    return old, soon
