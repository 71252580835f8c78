"""`mt5crs audit-log`: who changed what in a fleet, and whether anybody changed the log itself.

Not `mt5crs audit`, which looks at an installation. What is promised, and what is not: docs/audit-log.md.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from deploy.commands.compliance import SECTIONS, Whole, report
from deploy.commands.named_fleet import chosen_fleet, fleet_of
from mt5crs.operate.chosen import Chosen
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import table
from mt5crs.settings.schema import instead
from mt5crs_release.records.audit_chain import Finding, Head, Verified, Witness, records_of, verify

if TYPE_CHECKING:
    from deploy.coordination.audit_log import Log

WHOLE, UNKNOWN, BROKEN = 0, 1, 2
_DAY = click.DateTime(["%Y-%m-%d"])
_RECORDS, _SNAPSHOTS, _HEAD, _WITNESSES = (
    "records.jsonl",
    "config_changes.jsonl",
    "head.json",
    "witnesses.json",
)
_directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="What `audit-log export` wrote, instead of a fleet's log.",
)


@click.group("audit-log")
def audit_log() -> None:
    """Show and verify the audit log of a fleet: deployments, settings, keys, access, phases, halts, waivers.

    On the controller: `mt5crs --inventory inventory/<environment>.yml audit-log verify`.
    """


@audit_log.command("verify")
@_directory_option
@json_option
def verify_log(directory: Path | None, as_json: bool) -> None:
    """Look at every byte of the log, and compare its end with what other hosts have seen.

    Exit status 0: whole; 2: something was altered, is missing, was added or moved; 1: the Hub, or a host that
    may have seen more, could not be asked.
    """
    log = log_of(directory)
    from deploy.coordination.checkpoints import judged

    found = verify(log.records, log.head, log.snapshots, log.witnesses)
    checkpoints = judged(log.records, _signers())
    findings = (*found.findings, *(Finding(one.n, one.wrong) for one in checkpoints if one.wrong))
    found = Verified(found.records, found.witnessed, found.witnesses, findings)
    signed = max((one.of for one in checkpoints if one.good), default=0)
    if as_json:
        told = {**asdict(found), "signed": signed, "silent": dict(log.silent)}
        click.echo(json.dumps(told))
    else:
        _show(found, log, signed)
    raise SystemExit(BROKEN if found.findings else UNKNOWN if log.silent else WHOLE)


def _show(found: Verified, log: Log, signed: int) -> None:
    for finding in sorted(found.findings, key=lambda one: one.n):
        click.echo(f"record {finding.n}: {finding.what}" if finding.n else f"the log: {finding.what}")
    by = ", ".join(found.witnesses)
    seen = f"seen up to record {found.witnessed} by {by}" if by else "seen by no other host"
    if found.findings:
        click.echo(
            f"BROKEN: {len(found.findings)} findings in {found.records} records. Keep it as it is "
            "(`audit-log export`); a backup of the Hub has what was there (docs/audit-log.md)"
        )
    elif found.records:
        click.echo(
            f"whole: {found.records} records, each follows the one before; {seen}"
            + (f"; signed up to record {signed}" if signed else "")
        )
        if found.witnessed < found.records:
            click.echo(
                f"nobody else has seen the last {found.records - found.witnessed}: "
                "whether some after them were cut off is not known"
            )
    else:
        click.echo(f"the log is empty; {seen}")
    _say_silent(log)


def _say_silent(log: Log) -> None:
    for host, why in log.silent.items():
        click.echo(f"{host}: not asked what it has seen ({why})", err=True)


@audit_log.command()
@_directory_option
@click.option("--last", type=click.IntRange(1), default=30, show_default=True, help="So many of the newest.")
@click.option("--what", help="Only what begins so, such as deployment, secret or halt.")
@click.option("--number", type=click.IntRange(1), help="This record alone, with all that it says.")
@json_option
def show(directory: Path | None, last: int, what: str | None, number: int | None, as_json: bool) -> None:
    """Show the newest records. Whether they are genuine, `audit-log verify` says."""
    records = records_of(log_of(directory).records)
    if number is not None:
        chosen = [record for record in records if record["n"] == number]
        if not chosen:
            raise click.UsageError(f"there is no record {number}; the log has {len(records)}")
        click.echo(json.dumps(chosen[0], indent=None if as_json else 2))
        return
    fitting = [record for record in records if str(record.get("what", "")).startswith(what or "")]
    if what and not fitting:
        kinds = sorted({str(record.get("what")) for record in records})
        raise click.UsageError(f"no record is called {what}{instead(what, kinds)}")
    chosen = fitting[-last:]
    if as_json:
        click.echo(json.dumps(chosen))
        return
    rows = [
        (record["n"], _time(record.get("at")), record.get("by"), record.get("what"), summary(record))
        for record in chosen
    ]
    click.echo(table(("N", "WHEN (UTC)", "WHO", "WHAT", "ABOUT"), rows) if rows else "no record")
    if len(fitting) > len(chosen):
        click.echo(f"{len(fitting) - len(chosen)} older ones are not shown (--last)")


@audit_log.command()
@_directory_option
@click.option("--from", "begin", required=True, type=_DAY, help="The first day (UTC), such as 2026-07-01.")
@click.option("--to", "end", required=True, type=_DAY, help="The last day, which is part of the period.")
@click.option(
    "--strict", is_flag=True, help="Exit with 1 for what is noted, too, such as records not signed."
)
@json_option
def compliance(directory: Path | None, begin: datetime, end: datetime, strict: bool, as_json: bool) -> None:
    """Report a period: what changed, by whom, waivers, overrides, halts, rotations, what nobody vouches for.

    Exit status 0: the log is whole, and other hosts vouch for all records of the period; 2: the log was
    altered; 1: something is not known, and it is said what. That the log begins within the period, that the
    period is not over and that no release key has signed its records is noted, and no more (but --strict).
    """
    begin, end = (day.replace(tzinfo=timezone.utc) for day in (begin, end))
    if end < begin:
        raise click.UsageError(f"--to {end:%Y-%m-%d} is before --from {begin:%Y-%m-%d}")
    log = log_of(directory)
    from deploy.coordination.checkpoints import judged

    verified = verify(log.records, log.head, log.snapshots, log.witnesses)
    checkpoints = judged(log.records, _signers())
    signed = max((one.of for one in checkpoints if one.good), default=0)
    whole = Whole(verified, signed, log.silent)
    told = report(records_of(log.records), whole, begin, end + timedelta(days=1), datetime.now(timezone.utc))
    told["broken"] += [f"record {one.n}: {one.wrong}" for one in checkpoints if one.wrong]
    click.echo(json.dumps(told) if as_json else "\n".join(_compliance(told)))
    unknown = told["unverified"] or (strict and told["notes"])
    raise SystemExit(BROKEN if told["broken"] else UNKNOWN if unknown else WHOLE)


def _compliance(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"from {_time(told['from'])} up to {_time(told['to'])} (UTC): {told['records']} records"
    for who, acts in told["people"].items():
        yield f"  {who}: " + ", ".join(f"{number} {what}" for what, number in acts.items())
    for name, (heading, _) in SECTIONS.items():
        yield f"{heading}: {'none is recorded' if not told[name] else len(told[name])}"
        for one in told[name]:
            yield f"  {one['n']:>5}  {_time(one['at'])}  {one['by']}  {one['what']}  {summary(one)}"
    yield f"Overrides: {'none is recorded' if not told['overrides'] else len(told['overrides'])}"
    for one in told["overrides"]:
        yield f"  {one['n']:>5}  {_time(one['at'])}  {one['by']}  {one['override']}"
    for text in told["broken"]:
        yield f"BROKEN: {text}"
    yield f"Not vouched for: {'nothing' if not told['unverified'] else len(told['unverified'])}"
    for text in told["unverified"]:
        yield f"  {text}"
    yield f"Noted: {'nothing' if not told['notes'] else len(told['notes'])}"
    for text in told["notes"]:
        yield f"  {text}"


def _time(text: object) -> str:
    return str(text or "")[:19].replace("T", " ")


def summary(record: Mapping[str, Any]) -> str:
    """What a record is about, in a few words. Pure."""
    words = []
    if record.get("deployment"):
        words.append(f"deployment {str(record['deployment'])[:8]}")
    if record.get("first"):
        words.append("the first snapshot")
    if record.get("rekeyed"):
        words.append("with another vault password")
    changed = record.get("changed")
    if isinstance(changed, Mapping) and changed:
        words.append(_some(list(changed)))
    if record.get("files"):
        words.append(f"files {_some(record['files'])}")
    services = record.get("services") or ()
    if services:
        words.append(_some([f"{entry.get('host')} {entry.get('service')}" for entry in services]))
    for name in (
        "outcome",
        "magic",
        "profile",
        "to",
        "host",
        "address",
        "service",
        "backup",
        "order",
        "incident",
        "letters",
        "kind",
        "name",
    ):
        if record.get(name) is not None:
            words.append(f"{name} {record[name]}" if name != "outcome" else str(record[name]))
    if record.get("old") and record.get("new"):
        words.append(f"from {record['old']} to {record['new']}")
    for name in ("names", "keys", "added", "edited", "removed", "magics", "ids"):
        if record.get(name):
            words.append(f"{name} {_some(record[name])}")
    if record.get("hosts") and not record.get("deployment"):
        words.append(f"on {_some(list(record['hosts']))}")
    gateways = record.get("gateways")
    if isinstance(gateways, Mapping):
        words.append(_some([f"{host}: {said}" for host, said in gateways.items()]))
    for name in ("reason", "why"):
        if record.get(name):
            words.append(f"“{record[name]}”")
    if record.get("mended"):
        words.append("a torn end was cut off before it")
    return "; ".join(words)


def _some(names: Sequence[object]) -> str:
    more = len(names) - 4
    return ", ".join(map(str, names[:4])) + (f" and {more} more" if more > 0 else "")


@audit_log.command()
@click.argument("directory", type=click.Path(path_type=Path))
def export(directory: Path) -> None:
    """Write the whole log and all that other hosts have seen of it into the new DIRECTORY.

    `mt5crs audit-log verify --directory DIRECTORY` checks it later and elsewhere. It holds no secret. Exit
    status 1: nothing was written, or a host could not be asked what it has seen.
    """
    if directory.exists():
        raise click.UsageError(f"{directory} exists already; name a new directory")
    log = log_of(None)
    contents = {
        _RECORDS: log.records,
        _SNAPSHOTS: log.snapshots,
        _HEAD: _json(asdict(log.head) if log.head else None),
        _WITNESSES: _json({"seen": [asdict(one) for one in log.witnesses], "silent": dict(log.silent)}),
    }
    try:
        _write(directory, contents)
    except OSError as error:
        raise click.ClickException(
            f"{directory} cannot be written ({error.strerror}), and nothing was; name another place"
        ) from None
    found = verify(log.records, log.head, log.snapshots, log.witnesses)
    state = f"{len(found.findings)} findings: verify it" if found.findings else "whole"
    click.echo(f"{directory}: {found.records} records, {state}")
    _say_silent(log)
    raise SystemExit(UNKNOWN if log.silent else WHOLE)


@audit_log.command()
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A private release key, or the public one when an agent has the private.",
)
def checkpoint(key: Path) -> None:
    """Sign the end of the log with a release key; the signature becomes a record of it.

    Who can write on every host can then still not rewrite what is before it without that key.
    """
    from mt5crs.operate.acts import acted

    log = log_of(None)
    found = verify(log.records, log.head, log.snapshots, log.witnesses)
    if found.findings or log.head is None or not found.records:
        raise click.ClickException(
            "what is not whole is not signed; see `audit-log verify`"
            if found.findings
            else "the log is empty"
        )
    from deploy.coordination.checkpoints import CHECKPOINT, CheckpointError, signed

    try:
        act = signed(log.head, key)
    except CheckpointError as error:
        raise click.ClickException(str(error)) from None
    acted(CHECKPOINT, **act)
    click.echo(f"signed up to record {log.head.n}")


def _write(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Make the directory with all of it, or nothing. May raise OSError."""
    beside = Path(tempfile.mkdtemp(dir=directory.absolute().parent, prefix=f".{directory.name}."))
    try:
        for name, content in contents.items():
            (beside / name).write_bytes(content)
        beside.rename(directory)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def log_of(directory: Path | None) -> Log:
    """The log of the fleet, or an exported one. ClickException or UsageError when there is none."""
    from deploy.coordination import audit_log as log_of_fleet

    if directory is not None:
        return _exported(directory)
    command = click.get_current_context().command
    others = any(option.name == "directory" for option in command.params if isinstance(option, click.Option))
    chosen = chosen_fleet(f"audit-log {command.name} …{'; or --directory' if others else ''}")
    try:
        return log_of_fleet.fetch(log_of_fleet.reach_of(fleet_of(chosen.inventory)))
    except log_of_fleet.LogError as error:
        raise click.ClickException(str(error)) from None


class _Told(msgspec.Struct):
    """What an export says that hosts have seen."""

    seen: tuple[Witness, ...]
    silent: dict[str, str] = {}


def _exported(directory: Path) -> Log:
    from deploy.coordination.audit_log import Log

    content, name = {}, ""
    try:
        for name in (_RECORDS, _SNAPSHOTS, _HEAD, _WITNESSES):
            content[name] = (directory / name).read_bytes()
        name = _WITNESSES
        told = msgspec.json.decode(content[_WITNESSES], type=_Told)
        name = _HEAD
        head = msgspec.json.decode(content[_HEAD], type=Head | None)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(
            f"{directory} is no export of an audit log, or a damaged one ({name}: {why}); name a directory "
            "that `audit-log export` made"
        ) from None
    return Log(content[_RECORDS], content[_SNAPSHOTS], head, told.seen, told.silent)


def _signers() -> list[str] | None:
    """Release keys that count now; None where no inventory says."""
    chosen = click.get_current_context().find_root().obj
    if not isinstance(chosen, Chosen):
        return None
    fleet = fleet_of(chosen.inventory)
    return sorted(
        {str(key) for of in fleet.hosts.values() for key in of.get("baseline_release_signers") or ()}
    )
