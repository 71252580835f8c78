"""`mt5crs --inventory … config drift`: what hosts run against what the inventory wants. Changes nothing."""

from __future__ import annotations

import base64
import binascii
import io
import json
import shlex
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.hosts import statuses
from deploy.commands.named_fleet import fleet_of, inventory_named
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import table

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet
    from deploy.rollout.drift import Differing, Ignore, Sorted
    from deploy.rollout.generation import Desired
    from deploy.rollout.plan import Plan, Work

SAME, UNKNOWN, DIFFERS = 0, 1, 2
_ASK_S = 30
_TOGETHER = 8
_MOST_NAMES = 4


@click.command()
@click.option(
    "--ignore",
    "words",
    multiple=True,
    metavar="[HOST:]NAME",
    help="Leave this out of this comparison: a setting, file, unit or service, of all hosts or of one; globs "
    "such as 'inf-*:*_log_level' too. May be repeated. What is left out is counted and shown.",
)
@json_option
def drift(words: Sequence[str], as_json: bool) -> None:
    """Compare what every host runs with what the inventory wants. Changes nothing.

    Settings that differ are named, their values are not. Exit status 0: the same, but for what --ignore
    leaves out; 2: something differs; 1: a host could not be asked, so nobody knows, or --ignore names what
    there is not.
    """
    from deploy.rollout import plan
    from deploy.rollout.batches import OrderError
    from deploy.rollout.drift import Ignore, sort_out
    from deploy.rollout.generation import BundleError

    fleet = fleet_of(inventory_named())
    ignores = [Ignore(word) for word in words]
    try:
        wants = plan.wanted(fleet, fleet.hosts)
        _refuse(fleet, ignores, wants.values())
        answers = statuses(fleet)
        known = {host: answer for host, answer in answers.items() if not isinstance(answer, str)}
        made = plan.make(fleet, known, wants=wants) if known else None
    except (BundleError, OrderError) as error:
        raise click.ClickException(str(error)) from None
    unknown = {host: answer for host, answer in answers.items() if isinstance(answer, str)}
    told = sort_out(_differing(fleet, known, made) if made else [], ignores)
    if as_json:
        _as_json(told, unknown)
    else:
        _show(told, list(known))
    for host, why in unknown.items():
        click.echo(f"{host}: unknown ({why})", err=True)
    raise SystemExit(UNKNOWN if unknown else DIFFERS if told.differs else SAME)


def _refuse(fleet: Fleet, ignores: Sequence[Ignore], wants: Iterable[Desired]) -> None:
    """ClickException that names every word about nothing there is, before any host is asked."""
    if not ignores:
        return
    from deploy.fleet.settings import PARTS, variables_of
    from deploy.rollout.drift import names_of, refused

    names = {name for part in PARTS for name in variables_of(part)}.union(*map(names_of, wants))
    problems = refused(ignores, list(fleet.hosts), sorted(names))
    if problems:
        raise click.ClickException("\n  ".join(["nothing was compared:", *problems]))


def _differing(fleet: Fleet, known: Mapping[str, Mapping[str, Any]], made: Plan) -> list[Differing]:
    members = [member for member, work in made.work.items() if not work.todo.nothing]

    def one(member: tuple[str, str]) -> Differing:
        host, service = member
        return _look(fleet, host, made.work[member], known[host], made.observed[host][service])

    with ThreadPoolExecutor(_TOGETHER) as pool:
        return list(pool.map(one, members))


def _look(fleet: Fleet, host: str, work: Work, status: Mapping[str, Any], runs: str) -> Differing:
    """One service that does not run as wanted, with the names of what differs where only its content does."""
    from deploy.fleet.inventory import WINDOWS
    from deploy.rollout.drift import Differing, by_content, what_differs

    service = work.want.service
    now = status.get("services", {}).get(service, {})
    what: tuple[str, ...] = ()
    why = None
    if by_content(now):
        if host in fleet.in_group(WINDOWS):
            why = "on Windows only digests are compared"
        else:
            files = _files_of(fleet.hosts[host], service, str(now["current"]))
            if isinstance(files, str):
                why = files
            else:
                what = what_differs(work.want, fleet.hosts[host], files, now.get("bundle"))
    return Differing(host, service, runs, _todo(work), what, why)


def _files_of(variables: Mapping[str, Any], service: str, generation: str) -> dict[str, bytes] | str:
    """Path → content of what a generation on a host has written, or why that is not known."""
    from deploy.remote import ssh

    there = f"/opt/mt5crs/{service}{variables['fleet_suffix']}/generations/{generation}"
    # Links (to code and data) stay links, so this is a few kilobytes.
    reply = ssh.run(variables, ["sh", "-c", f"tar -C {shlex.quote(there)} -c . | base64"], timeout_s=_ASK_S)
    if reply.status != 0:
        return f"its files could not be read: {reply.why}"
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(reply.output))) as archive:
            return {
                member.name.removeprefix("./"): file.read()
                for member in archive
                if member.isfile() and (file := archive.extractfile(member)) is not None
            }
    except (tarfile.TarError, binascii.Error, ValueError):
        return "its files could not be read: the host sent no archive"


def _todo(work: Work) -> str:
    if work.todo.activate:
        return f"activate {work.want.digest[:12]}" + (" without a restart" if work.todo.live else "")
    return f"start {', '.join(work.todo.start)}"


def _as_json(told: Sorted, unknown: Mapping[str, str]) -> None:
    left_out = [dict(zip(("host", "service", "name", "by"), one, strict=True)) for one in told.ignored]
    document = {
        "differs": [asdict(one) for one in told.differs],
        "ignored": left_out,
        "ignores_nothing": told.idle,
        "unknown": unknown,
    }
    click.echo(json.dumps(document))


def _show(told: Sorted, known: Sequence[str]) -> None:
    if told.differs:
        rows = [(one.host, one.service, one.runs, _named(one), one.todo) for one in told.differs]
        click.echo(table(("HOST", "SERVICE", "RUNS", "DIFFERS IN", "A DEPLOYMENT WOULD"), rows))
    elif known:
        but = ", but for what is ignored" if told.ignored else ""
        click.echo(f"{', '.join(known)}: every service runs as the inventory wants it{but}")
    if told.ignored:
        click.echo(f"ignored: {len(told.ignored)}")
        for host, service, name, word in told.ignored:
            click.echo(f"  {host}  {service}  {name or 'all of it'}  (--ignore {word})")
    for word in told.idle:
        click.echo(f"--ignore {word}: nothing of it differs")


def _named(one: Differing) -> str:
    if not one.what:
        return f"not known: {one.why_unknown}" if one.why_unknown else "its state"
    more = len(one.what) - _MOST_NAMES
    return ", ".join(one.what[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
