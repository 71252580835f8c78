"""`mt5crs … config history` and `rollback`: earlier configurations, from the snapshots of the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.audit_log import log_of
from deploy.commands.named_fleet import fleet_of, inventory_named
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import table
from mt5crs_release.records.audit_chain import SNAPSHOT, records_of, verify
from mt5crs_release.records.configuration_changes import ALL, between

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet
    from deploy.fleet.restoring import Restoring

_NAMES = 6


@dataclass(frozen=True)
class Kept:
    """One snapshot: what the audit log tells of it. `changed`: names of settings, keys and access."""

    n: int
    at: str
    by: str
    deployment: str
    outcome: str
    changed: tuple[str, ...]
    files: tuple[str, ...]


def kept(records: Sequence[Mapping[str, Any]]) -> list[Kept]:
    """Every snapshot that records tell of, oldest first. Pure."""
    outcomes = {
        str(record.get("deployment")): str(record.get("outcome"))
        for record in records
        if record.get("what") == "deployment.ended"
    }
    more: dict[int, list[str]] = {}
    for record in records:
        if isinstance(record.get("of_snapshot"), int):
            more.setdefault(record["of_snapshot"], []).extend(
                record.get("changed") or record.get("files") or ()
            )
    found = []
    for record in records:
        of = record.get(SNAPSHOT)
        if not isinstance(of, Mapping):
            continue
        names = ("the first",) if record.get("first") else tuple(record.get("changed") or ())
        found.append(
            Kept(
                int(of["n"]),
                str(record.get("at")),
                str(record.get("by")),
                str(record.get("deployment") or ""),
                outcomes.get(str(record.get("deployment")), "not ended"),
                (*names, *more.get(int(of["n"]), ())),
                tuple(record.get("files") or ()),
            )
        )
    return found


@click.command()
@json_option
def history(as_json: bool) -> None:
    """Show every configuration that was deployed: number, time, who, deployment, what changed.

    A deployment that failed is told of too; what ran then is what ran before.
    """
    found = kept(records_of(log_of(None).records))
    if as_json:
        click.echo(json.dumps([vars(one) for one in found]))
        return
    rows = [
        (
            one.n,
            one.at[:19].replace("T", " "),
            one.by,
            one.deployment[:8],
            one.outcome,
            _some(one.changed) or f"no setting ({_some(one.files)})",
        )
        for one in reversed(found)
    ]
    heading = ("N", "WHEN (UTC)", "WHO", "DEPLOYMENT", "OUTCOME", "CHANGED")
    click.echo(table(heading, rows) if rows else "no configuration was deployed since there is an audit log")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


@click.command()
@click.argument("number", type=click.IntRange(1), metavar="N")
@click.option(
    "--with",
    "named",
    multiple=True,
    metavar="SETTING",
    help="Also if this limit, or this setting that says who gets in, changes (repeatable).",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def rollback(number: int, named: Sequence[str], yes: bool, as_json: bool) -> None:
    """Write group_vars and host_vars back to configuration N of `config history`. Deploys nothing.

    Shows the change, what a deployment would restart, and what stays as it is: inventory, defaults, waivers,
    keys, and every file with a secret, of which only a digest is kept. With --json and without --yes it only
    looks. Exit status 0: done, or nothing to do; 1: refused; 2: wrong usage.
    """
    from deploy.fleet import restoring
    from deploy.fleet.guarded import ACCESS, LIMITS
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.fleet.settings import check
    from deploy.fleet.snapshot import file_of, files_of, key_of, path_of
    from deploy.vaults.text import like

    unguarded = [name for name in named if name not in ACCESS | LIMITS]
    if unguarded:
        raise click.UsageError(
            f"--with {unguarded[0]}: it is no limit, and does not say who gets in, so it is not to be named"
            f"{like(unguarded[0], ACCESS | LIMITS)}"
        )
    inventory = inventory_named()
    before = fleet_of(inventory)
    snapshot = _snapshot(number)
    key = key_of(inventory)
    now = {name: file_of(key, name, path) for name, path in files_of(before).items()}
    made = restoring.plan(snapshot["files"], now)
    if not made.files:
        _end(as_json, made, [], {}, f"every file that goes back is as in {number} already")
        return
    paths = {name: path_of(inventory, name) for name in made.files}
    try:
        with _directories_of(paths.values()):
            after = resolve(inventory, instead={paths[name]: text for name, (_, text) in made.files.items()})
    except InventoryError as error:
        raise click.ClickException(f"with the files of {number} {error}; nothing was changed") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}; nothing was changed") from None
    problems = check(after)
    if problems:
        raise click.ClickException(
            f"a deployment would refuse {number} (nothing was changed):\n  " + "\n  ".join(problems)
        )
    _require_named(restoring.changed(before, after), named)
    differs = _differs(snapshot, after)
    does = _impact(before, after)
    if as_json and not yes:
        _end(True, made, differs, does, "")
        return
    if not as_json:
        click.echo("\n".join(made.diff()))
        _tell(made, differs, does, number, snapshot)
    if not yes:
        click.confirm(f"Write {len(made.files)} files?", abort=True)
    try:
        for name, (_, text) in made.files.items():
            restoring.write(paths[name], text)
    except OSError as error:
        raise click.ClickException(
            f"{error}; some files may be written already: mend it, then repeat the command"
        ) from None
    acted("configuration.rolled_back", to=number, files=list(made.files))
    script = inventory.with_suffix(".py")
    _end(
        as_json,
        made,
        differs,
        does,
        f"written; nothing is deployed yet: `pyinfra {script} deploy.py`, or "
        f"`ansible-playbook -i {inventory} site.yml`",
    )


@contextmanager
def _directories_of(paths: Iterable[Path]) -> Iterator[None]:
    """Ansible looks into group_vars and host_vars only if they are there; those made for it go again."""
    wanted = {
        parent for path in paths for parent in path.parents if parent.name in ("group_vars", "host_vars")
    }
    made = [directory for directory in wanted if not directory.exists()]
    try:
        for directory in made:
            directory.mkdir()
        yield
    finally:
        for directory in made:
            with suppress(OSError):
                directory.rmdir()


def _snapshot(number: int) -> dict[str, Any]:
    """Snapshot `number`, out of a log that is whole. ClickException otherwise: it decides what trades."""
    log = log_of(None)
    found = verify(log.records, log.head, log.snapshots, log.witnesses)
    if found.findings:
        raise click.ClickException(
            f"the audit log is broken ({found.findings[0].what}), so its snapshots are not used; see "
            "`audit-log verify`"
        )
    for host, why in log.silent.items():
        click.echo(f"{host} was not asked whether the log is whole ({why})", err=True)
    lines = log.snapshots.splitlines()
    if not lines:
        raise click.ClickException("no configuration was deployed since there is an audit log")
    if number > len(lines):
        raise click.UsageError(f"there is no configuration {number}; `config history` has 1 to {len(lines)}")
    return dict(json.loads(lines[number - 1]))


def _differs(snapshot: Mapping[str, Any], after: Fleet) -> list[str]:
    """Settings that would not be as in the snapshot, on the hosts that it has."""
    from deploy.fleet.snapshot import snapshot_of

    hosts = {host: of for host, of in after.hosts.items() if host in snapshot["hosts"]}
    settings = {
        name: {told: on if on == ALL else [host for host in on if host in hosts] for told, on in of.items()}
        for name, of in snapshot["settings"].items()
    }
    then = {**snapshot, "hosts": list(hosts), "settings": settings}
    found = between(then, snapshot_of(replace(after, hosts=hosts)))
    if found is None:
        return []
    if found.rekeyed:
        return ["all that cannot be compared, since the vault password is another one"]
    return sorted({*found.settings, *found.secrets, *found.access})


def _require_named(changed: Mapping[str, Mapping[str, tuple[Any, Any]]], named: Sequence[str]) -> None:
    from deploy.fleet.restoring import to_be_named

    wanting = to_be_named(list(changed), named)
    if not wanting:
        return
    rows = [
        f"  {name} on {', '.join(changed[name])}: from {_short(now)} to {_short(then)}"
        for name in wanting
        for now, then in [next(iter(changed[name].values()))]
    ]
    options = " ".join(f"--with {name}" for name in wanting)
    raise click.ClickException(
        "this changes limits, or who gets in; name each to have it changed (nothing was changed):\n"
        + "\n".join(rows)
        + f"\nto have all of it: {options}"
    )


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 300 else f"{text[:299]}…"


def _impact(before: Fleet, after: Fleet) -> dict[str, Any]:
    """Services that would be activated anew, hosts that would be set up otherwise; or why it is not known."""
    from deploy.rollout.generation import BundleError
    from deploy.rollout.impact import impact

    try:
        found = impact(before, after)
    except BundleError as error:
        return {"unknown": str(error)}
    return {"services": found.services, "live": found.live, "hosts": found.hosts}


def _tell(
    made: Restoring, differs: Sequence[str], does: Mapping[str, Any], number: int, snapshot: Mapping[str, Any]
) -> None:
    for name, why in made.left.items():
        click.echo(f"{name} stays as it is: {why}")
    if snapshot.get("given"):
        click.echo(
            f"{number} was deployed with {', '.join(snapshot['given'])} on the command line; no file has it"
        )
    click.echo(
        f"after it these settings still differ from {number}: {_some(differs)}"
        if differs
        else f"after it every setting is as in {number}"
    )
    if "unknown" in does:
        click.echo(f"what a deployment would restart is not known: {does['unknown']}")
        return
    for host in dict.fromkeys([*(host for host, _ in does["services"]), *does["hosts"]]):
        services = ", ".join(
            service + (" (without a restart)" if (of, service) in does["live"] else "")
            for of, service in does["services"]
            if of == host
        )
        what = services or "nothing, but set it up otherwise"
        click.echo(f"a deployment would activate anew on {host}: {what}")
    if set(does["services"]) == set(does["live"]) and not does["hosts"]:
        click.echo("a deployment would restart nothing")


def _end(as_json: bool, made: Restoring, differs: Sequence[str], does: Mapping[str, Any], said: str) -> None:
    if not as_json:
        click.echo(said)
        return
    told = {
        "files": list(made.files),
        "left": dict(made.left),
        "differs": list(differs),
        "impact": dict(does),
        "diff": list(made.diff()),
        "said": said,
    }
    click.echo(json.dumps(told))
