"""`mt5crs --inventory … incident`: opened with a halt, told, watched, closed with its cause, reported."""

from __future__ import annotations

import getpass
import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.named_fleet import chosen_fleet, fleet_of
from mt5crs.client.gateway import GatewayClient
from mt5crs.foreign_text import shown_tree
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.gateways import ask, targets
from mt5crs.operate.reason import a_reason
from mt5crs.protocol import replies, requests

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_TIMEOUT_S = 30
_LOOK_S = 15.0
_STEP_S = 5
"""So often alerts are looked for: some last for seconds."""
_sleep: Callable[[float], None] = time.sleep
_now: Callable[[], float] = time.time


@click.group()
def incident() -> None:
    """Incidents: halt, tell, watch, report. P0 halts at once, P1 degrades and watches.

    They are kept on the Hub, and shown on its page.
    """


@incident.command("open")
@click.option(
    "--priority", type=click.Choice(["P0", "P1"]), required=True, help="P0: halt. P1: degrade, watch."
)
@click.option("--what", required=True, callback=a_reason, help="What is wrong; kept in the records.")
@click.option("--magic", type=click.IntRange(1), help="Only this magic number; without it the whole fleet.")
@click.option("--no-halt", is_flag=True, help="P0 without a halt: somebody has seen to it otherwise.")
@click.option("--reduce", "reducing", is_flag=True, help="P1: trading goes on, and may only reduce.")
@click.option("--rollback", is_flag=True, help="Also take back the newest deployment, on all hosts at once.")
@json_option
def open_(
    priority: str,
    what: str,
    magic: int | None,
    no_halt: bool,
    reducing: bool,
    rollback: bool,
    as_json: bool,
) -> None:
    """Open an incident. P0: halts first, then tells, looks for what it may come from, and reports.

    P1 with --reduce: degraded mode first, in which only what closes, cancels or reduces is taken. Exit status
    1: a gateway did not answer, so it may still trade; or nobody was told; or it is not recorded.
    """
    if priority == "P0" and reducing:
        raise click.UsageError("--reduce is for a P1; a P0 halts, which lets nothing open either")
    chosen = chosen_fleet("incident open --priority P0 --what …")
    of = fleet_of(chosen.inventory)
    _hub(of)
    opened = _now()
    from deploy.incidents import record

    made: dict[str, Any] = {
        "id": record.identity(opened, uuid.uuid4().hex),
        "priority": priority,
        "state": "open",
        "what": what,
        "magic": magic,
        "by": getpass.getuser(),
        "opened": opened,
        "closed": None,
        "root_cause": "",
        "acts": [{"at": opened, "what": f"opened by {getpass.getuser()}: {what}"}],
    }
    failed = False
    if priority == "P0" and not no_halt:
        failed = _halt(made, what, magic)
    if reducing:
        failed = _reduce(made, what, magic)
    # Kept at once: whoever is interrupted from here on finds it.
    told = _tell(of, made, keep=True)
    failed = failed or bool(told)
    _add(made, f"nobody was told: {told}" if told else "told to Alertmanager")
    sections = _sections(of, opened - record.BEFORE_S, _now())
    newest = _suspect(of, sections, opened)
    if newest is not None:
        _add(made, f"may come from {newest['action']} of {newest['started']} by {newest['who']}")
    if rollback:
        failed = not _rolled_back(chosen.inventory, made, what, quiet=as_json) or failed
    kept = _keep(of, made)
    if kept:
        click.echo(f"error: it is not recorded on the Hub: {kept}", err=True)
    acted("incident.opened", incident=made["id"], priority=priority, reason=what, magic=magic)
    path = _report(of, made)
    if as_json:
        click.echo(json.dumps(shown_tree(made)))
    else:
        for act in made["acts"]:
            click.echo(act["what"])
        if newest is not None and not rollback:
            click.echo(f"take it back: ansible-playbook -i {chosen.inventory} rollback.yml --tags fleet")
        then = (
            "resume it once the cause is gone"
            if priority == "P0"
            else f"watch it: incident watch {made['id']}"
        )
        click.echo(f"incident {made['id']}: {path}\n{then}; close it with its root cause")
        _still_reduced(made)
    raise SystemExit(int(failed or bool(kept)))


@incident.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show all incidents, newest first."""
    of = fleet_of(chosen_fleet("incident list").inventory)
    found = _all(of)
    if as_json:
        click.echo(json.dumps(found))
        return
    from deploy.incidents.record import clock

    for each in found:
        cause = each["root_cause"] or "root cause: to be filled in"
        head = f"{each['id']}  {each['priority']}  {each['state']:<8} {clock(each['opened'])}"
        click.echo(f"{head}  {each['what']}; {cause}")
    if not found:
        click.echo("none is recorded")


@incident.command()
@click.argument("id")
def show(id: str) -> None:
    """Write its report anew from the records, and show it. Exit status 1: a record could not be had."""
    of = fleet_of(chosen_fleet("incident show ID").inventory)
    found = _one(of, id)
    path, words, missing = _written(of, found)
    click.echo(f"{words}\n{path}")
    raise SystemExit(int(bool(missing)))


@incident.command()
@click.argument("id")
@click.option(
    "--quiet", type=click.IntRange(1), default=10, show_default=True, help="Minutes without an alert."
)
@click.option(
    "--within", type=click.IntRange(1), default=60, show_default=True, help="Minutes to wait for that."
)
def watch(id: str, quiet: int, within: int) -> None:
    """Watch the alerts until none has fired for a while.

    Exit status 0: it is quiet; 2: a critical alert fires, so it is a P0; 1: it is not quiet in time, or
    nobody can say.
    """
    from deploy.coordination import alerts

    of = fleet_of(chosen_fleet("incident watch ID").inventory)
    found = _one(of, id)
    if found["state"] == "closed":
        raise click.UsageError(f"{found['id']} is closed")
    asks, began, since = alerts.on_hub(_hub(of)), _now(), _now()
    found["state"] = "watching"
    _add(found, f"watched for {quiet} quiet minutes")
    status, why = 1, ""
    while _now() - began < within * 60:
        try:
            now = asks(0, 0)
        except alerts.UnknownError as error:
            since, why = _now(), str(error)
        else:
            critical = sorted(str(each) for each in now if each.severity == "critical")
            if critical:
                status, why = 2, f"critical: {', '.join(critical)}"
                break
            if now:
                since, why = _now(), ", ".join(sorted(map(str, now)))
            if _now() - since >= quiet * 60:
                status, why = 0, "quiet"
                break
        _sleep(_LOOK_S)
    _add(found, {0: "quiet", 1: f"not quiet in time: {why}", 2: f"worse: {why}"}[status])
    if problem := _keep(of, found):
        click.echo(f"error: it is not recorded on the Hub: {problem}", err=True)
        status = status or 1
    click.echo(found["acts"][-1]["what"])
    if status == 2:
        click.echo(f'it is a P0 now: incident open --priority P0 --what "{found["what"]}"')
    _still_reduced(found)
    raise SystemExit(status)


@incident.command()
@click.argument("id")
@click.option("--root-cause", required=True, callback=a_reason, help="Why it happened; kept in the records.")
def close(id: str, root_cause: str) -> None:
    """Close an incident with its root cause. Lifts nothing. Closed already: the cause is corrected."""
    of = fleet_of(chosen_fleet("incident close ID --root-cause …").inventory)
    found = _one(of, id)
    found["root_cause"] = root_cause
    found["state"], found["closed"] = "closed", found["closed"] or _now()
    _add(found, f"closed by {getpass.getuser()}: {root_cause}")
    _tell(of, found)
    if problem := _keep(of, found):
        raise click.ClickException(f"it is not closed: {problem}")
    acted("incident.closed", incident=found["id"], reason=root_cause)
    path, _, missing = _written(of, found)
    click.echo(f"incident {found['id']} is closed: {path}")
    _still_reduced(found)
    raise SystemExit(int(bool(missing)))


@incident.command()
@click.option("--month", metavar="YYYYMM", help="By default the last one that is over.")
@json_option
def monthly(month: str | None, as_json: bool) -> None:
    """Report a month's service levels and incidents, from the Hub's records, as text and JSON.

    No data is said, with the reason, and never shown as zero. Exit status 1: a level has no data.
    """
    from deploy.fleet.vault_password import PROJECT
    from deploy.incidents import monthly as of_month

    of = fleet_of(chosen_fleet("incident monthly").inventory)
    wanted = month or time.strftime("%Y%m", time.gmtime(of_month.first_of_this(_now()) - 1))
    if not re.fullmatch(r"20[0-9]{2}(0[1-9]|1[0-2])", wanted):
        raise click.UsageError(f"--month: {wanted!r} is no month; expected YYYYMM")
    if wanted > time.strftime("%Y%m", time.gmtime(_now())):
        raise click.UsageError(f"--month: {wanted} has not begun")
    try:
        levels = of_month.asked(_hub(of), wanted)
    except of_month.NoLevelsError as error:
        raise click.ClickException(str(error)) from None
    incidents = [each for each in _all(of) if levels["since"] <= each["opened"] < levels["until"]]
    made = {"environment": of.environment, **levels, "incidents": incidents}
    words = of_month.text(made)
    directory = PROJECT / "reports" / "monthly"
    directory.mkdir(parents=True, exist_ok=True)
    base = directory / f"{of.environment}-{wanted}"
    base.with_suffix(".json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    base.with_suffix(".txt").write_text(words, encoding="utf-8")
    click.echo(json.dumps(made) if as_json else f"{words}{base.with_suffix('.txt')}")
    raise SystemExit(int(any("no_data" in level for level in made["levels"].values())))


# ---- parts of it ----


def _hub(of: Fleet) -> Mapping[str, Any]:
    hubs = of.in_group("hub")
    if not hubs:
        raise click.UsageError("the inventory has no Hub, so nothing keeps them; halt with `mt5crs halt`")
    return of.hosts[hubs[0]]


def _add(made: dict[str, Any], what: str) -> None:
    made["acts"].append({"at": _now(), "what": what})


def _halt(made: dict[str, Any], reason: str, magic: int | None) -> bool:
    """Halt at every gateway; whether one did not answer."""

    def call(client: GatewayClient, connection: ConnectionSettings) -> replies.HaltState:
        scope, number = ("FLEET", connection.magic_number) if magic is None else ("MAGIC", magic)
        return client.call(requests.Halt, replies.HaltState, magic=number, scope=scope, reason=reason)

    answers = ask(targets(None, magic), call)
    for answer in answers:
        whom = f"magic number {magic}" if magic else "everything"
        done = f"{answer.name}: {whom} is halted"
        _add(
            made,
            done
            if answer.value is not None
            else f"{answer.name}: not halted, {answer.error}; it may still trade",
        )
    acted("halt", answers, magic=magic, reason=reason)
    return any(answer.value is None for answer in answers)


def _reduce(made: dict[str, Any], reason: str, magic: int | None) -> bool:
    """Degraded mode at every gateway; whether a magic number may go on as before."""
    from deploy.incidents import degraded

    done = degraded.reduce(targets(None, magic), magic, reason)
    for each in done:
        _add(made, str(each))
    made["reduced"] = [each.magic for each in done if not each.error and not each.already]
    acted("incident.degraded", incident=made["id"], magics=made["reduced"], reason=reason)
    return any(each.error for each in done)


def _still_reduced(made: Mapping[str, Any]) -> None:
    """Say what this incident has reduced: only a person lifts it."""
    from deploy.incidents.degraded import way_back

    if made.get("reduced"):
        click.echo(way_back(made["reduced"]))


def _rolled_back(inventory: Path, made: dict[str, Any], why: str, *, quiet: bool) -> bool:
    """quiet: standard output is for the result alone."""
    from deploy.controller import programs

    command = [programs.require("ansible-playbook"), "-i", str(inventory), "rollback.yml", "--tags", "fleet"]
    told = json.dumps({"why": f"incident {made['id']}: {why}"[:200]})
    done = subprocess.run([*command, "-e", told], check=False, stdout=2 if quiet else None)
    _add(
        made,
        "the newest deployment was taken back" if done.returncode == 0 else "the rollback failed; see above",
    )
    return done.returncode == 0


def _on_hub(of: Fleet, **asked: Any) -> dict[str, Any]:
    from deploy.incidents import on_hub
    from deploy.remote import script

    variables = _hub(of)
    address = str(variables["fleet_address"])
    shown = f"[{address}]" if ":" in address else address
    told = {"keep": None, "told": None, **asked}
    told["alertmanager"] = f"http://{shown}:{variables['monitoring_alertmanager_port']}"
    try:
        return script.ask(variables, on_hub, stdin=json.dumps(told), timeout_s=_TIMEOUT_S)
    except script.ScriptError as error:
        raise click.ClickException(f"the Hub: {error}") from None


def _keep(of: Fleet, made: Mapping[str, Any]) -> str:
    """Keep it on the Hub; why it is not kept, or nothing."""
    try:
        _on_hub(of, keep=made)
    except click.ClickException as error:
        return error.message
    return ""


def _tell(of: Fleet, made: Mapping[str, Any], *, keep: bool = False) -> str:
    """Have the Hub's Alertmanager send it, or its end; why nobody was told, or nothing."""
    from deploy.incidents.monthly import stamp

    ends = _now() if made["closed"] else _now() + 24 * 3600
    alert = {
        "labels": {
            "alertname": "Mt5crsIncident",
            "severity": "critical" if made["priority"] == "P0" else "warning",
            "concerns": "incident",
            "incident": made["id"],
            "environment": of.environment,
            "host": "",
        },
        "annotations": {"summary": f"{made['priority']} {made['id']}: {made['what']}"},
        "startsAt": stamp(made["opened"]),
        "endsAt": stamp(ends),
    }
    try:
        return str(_on_hub(of, told=alert, keep=made if keep else None)["told"])
    except click.ClickException as error:
        return error.message


def _all(of: Fleet) -> list[dict[str, Any]]:
    return [dict(shown_tree(each)) for each in _on_hub(of)["incidents"]]


def _one(of: Fleet, name: str) -> dict[str, Any]:
    found = _all(of)
    fitting = [each for each in found if str(each["id"]).startswith(name)]
    if len(fitting) != 1:
        there = ", ".join(str(each["id"]) for each in found[:8]) or "none"
        raise click.UsageError(f"{len(fitting) or 'no'} incidents begin with {name!r}; the newest: {there}")
    return fitting[0]


def _sections(of: Fleet, since: float, until: float) -> dict[str, dict[str, Any]]:
    from deploy.daily.asking import asked_of, told_by

    hosts = [*of.in_group("gateway"), *of.in_group("hub")[:1]]
    # By the hosts' clock: nothing of the broker's is asked for.
    asked = {**asked_of(int(since * 1000), int(until * 1000), 0, until), "step_s": _STEP_S}
    return told_by(of, dict.fromkeys(hosts, asked))


def _suspect(of: Fleet, sections: Mapping[str, Any], opened: float) -> Mapping[str, Any] | None:
    from deploy.incidents import record

    told = (sections.get(of.in_group("hub")[0]) or {}).get("deployments") or {}
    return record.suspect(shown_tree(told.get("value") or []), opened)


def _written(of: Fleet, made: Mapping[str, Any]) -> tuple[Path, str, list[str]]:
    """Where its report is, its words, and which records could not be had."""
    from deploy.fleet.vault_password import PROJECT
    from deploy.incidents import record

    hub = of.in_group("hub")[0]
    until = _now() if made["closed"] is None else float(made["closed"]) + 600
    told = shown_tree(_sections(of, float(made["opened"]) - record.BEFORE_S, min(until, _now())))
    missing = record.unknown(told, of.in_group("gateway"), hub)
    words = record.report(made, record.timeline(made, told, hub), record.figures(made, told, hub), missing)
    directory = PROJECT / "reports" / "incidents"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{of.environment}-{made['id']}.md"
    path.write_text(words, encoding="utf-8")
    return path, words, missing


def _report(of: Fleet, made: Mapping[str, Any]) -> Path:
    return _written(of, made)[0]
