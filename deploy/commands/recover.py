"""`mt5crs --inventory … recover`: after a crash, start again what systemd has given up; say what is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct, field

from deploy.commands import hosts
from deploy.commands.named_fleet import chosen_fleet, fleet_of, of_fleet
from mt5crs.client.gateway import GatewayClient
from mt5crs.foreign_text import shown_tree
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.gateways import Answer, ask
from mt5crs.operate.reason import a_reason
from mt5crs.protocol import replies, requests
from mt5crs_release.lifecycle.dependence import ORDER

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_START_S = 120
"""A reconciler gets ready only after its start-up sync."""
_FIRST = "gateway"
_UNDER_WAY = ("activating", "provisional", "reverting")
"""States of a generation in which its host's release tool starts and stops its units."""


class Found(Struct, frozen=True):
    """What a host said of its services. `given_up`: units to start, in that order; `left`: unit → why not."""

    given_up: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def found_of(status: Mapping[str, Any]) -> Found:
    """What is to be done on a host, by its release tool's status. Pure.

    A unit that somebody has stopped is not failed; one that a deployment is at work on is the deployment's.
    """
    found = Found()
    services: Mapping[str, Any] = status.get("services") or {}
    reconciler = (services.get("reconciler") or {}).get("units") or {}
    waits = any(state != "active" for state in reconciler.values())
    rank = {name: number for number, name in enumerate(ORDER)}
    for name in sorted(services, key=lambda name: rank.get(name, len(ORDER))):
        of = services[name]
        for unit, state in (of.get("units") or {}).items():
            if state == "failed" and (of.get("pending") or of.get("state") in _UNDER_WAY):
                found.left[unit] = "failed, and waits for the end of a deployment: it puts it back"
            elif state == "failed":
                found.given_up.append(unit)
            elif state == "inactive" and name == "strategy" and waits:
                found.left[unit] = "is inactive: it starts with its reconciler, which does not run"
            elif state != "active":
                found.left[unit] = f"is {state}; systemd has not given it up"
    return found


def _asked(of: Fleet) -> tuple[dict[str, Found], dict[str, str]]:
    """What is to be done by host, and the hosts that do not say, with why."""
    from deploy.fleet.inventory import WINDOWS

    told = hosts.statuses(of)
    found = {host: found_of(status) for host, status in told.items() if not isinstance(status, str)}
    windows = of.in_group(WINDOWS)
    silent = {host: status for host, status in told.items() if isinstance(status, str)}
    return {host: by_hand(one) if host in windows else one for host, one in found.items()}, silent


def by_hand(found: Found) -> Found:
    """The same for a host on which nothing is started from here. Pure."""
    why = "failed: start it there (`sc start`, or its task), since Windows hosts are reached by Ansible alone"
    return Found(left={**dict.fromkeys(found.given_up, why), **found.left})


@click.command()
@click.option("--reason", required=True, callback=a_reason, help="Why; kept in the fleet's audit log.")
@click.option(
    "--lock",
    type=click.Choice(["fleet", "none"]),
    default="fleet",
    show_default=True,
    help="none: without the fleet's lock, when the Hub does not answer and nobody else deploys.",
)
@json_option
def recover(reason: str, lock: str, as_json: bool) -> None:
    """Start again what systemd has given up, gateways first, and say what is left to a person.

    Services start again by themselves; one that failed too often stays down (`failed`), which this ends.
    What somebody has stopped stays so, and nothing is sent to the broker. Then it names what still does not
    run, orders of unknown fate and halts, each with its command.

    It starts nothing while somebody deploys: it holds the fleet's lock meanwhile, and looks again once it has
    it. What a dead deployment left is settled first.

    Exit status 1: something does not run, the fate of an order is not known, a host or gateway does not
    answer, or the lock cannot be had.
    """
    chosen = chosen_fleet("recover --reason …")
    of = fleet_of(chosen.inventory)
    found, silent = _asked(of)
    done: dict[str, dict[str, str]] = {}
    todo = _todo(found)
    if todo:
        done = _started(of, todo, reason, lambda: None) if lock == "none" else _locked(of, reason)
        found, silent = _asked(of)
    else:
        _say("nothing was given up by systemd")
    left = [f"{host} cannot be asked: {why}" for host, why in silent.items()]
    for host, units in done.items():
        left += [f"{host}: {unit} {how}" for unit, how in units.items() if how != STARTED]
    for host, one in found.items():
        told_of = {unit for unit, how in done.get(host, {}).items() if how != STARTED}
        again = dict.fromkeys(one.given_up, "failed again; its journal there says why")
        left += [f"{host}: {unit} {why}" for unit, why in (again | one.left).items() if unit not in told_of]
    gateways = ask(of_fleet(of, chosen.operator), _status)
    left += [why for answer in gateways for why in unknown_at(answer)]
    halts = [why for answer in gateways for why in halts_at(answer)]
    report = shown_tree({"started": done, "left": left, "halts": halts})
    click.echo(json.dumps(report) if as_json else text(report))
    raise SystemExit(int(bool(left)))


STARTED = "started"


def _todo(found: Mapping[str, Found]) -> dict[str, list[str]]:
    return {host: one.given_up for host, one in found.items() if one.given_up}


def _say(line: str) -> None:
    click.echo(line, err=True)


def _locked(of: Fleet, reason: str) -> dict[str, dict[str, str]]:
    """Start what is given up once nobody deploys. ClickException: the lock cannot be had, or was lost."""
    from deploy.coordination.alone import alone
    from deploy.coordination.fleet_lock import LockError

    try:
        with alone(of, "recover", reason, _say, without="--lock=none") as held:
            found, _ = _asked(of)  # whoever had the lock before may have mended it
            todo = _todo(found)
            if not todo:
                held.outcome = "unchanged"
                _say("nothing is given up by systemd any more")
                return {}
            return _started(of, todo, reason, held.require)
    except LockError as error:
        raise click.ClickException(str(error)) from None


def _started(
    of: Fleet, todo: Mapping[str, Sequence[str]], reason: str, require: Callable[[], None]
) -> dict[str, dict[str, str]]:
    """Host → unit → `started`, or why not. The gateways' hosts come first, others need them.

    `require` is called before each wave and raises when nothing more may be done. What was done is in the
    fleet's audit log, also then.
    """
    done: dict[str, dict[str, str]] = {}
    _say("this starts again " + "; ".join(f"{host}: {', '.join(units)}" for host, units in todo.items()))
    gateways = [host for host in todo if host in of.in_group(_FIRST)]
    try:
        for wave in (gateways, [host for host in todo if host not in gateways]):
            require()
            with ThreadPoolExecutor(max(1, len(wave))) as pool:
                done |= zip(wave, pool.map(lambda host: _on(of.hosts[host], todo[host]), wave), strict=True)
    finally:
        if done:
            acted("services.recovered", reason=reason, hosts=done)
    return done


def _on(variables: Mapping[str, Any], units: Sequence[str]) -> dict[str, str]:
    from deploy.remote import ssh

    done = {}
    for unit in units:
        for verb in ("reset-failed", "start"):
            reply = ssh.run(variables, ["systemctl", verb, unit], timeout_s=_START_S)
            done[unit] = STARTED
            if reply.status != 0:
                why = (
                    hosts.why_it_ended(variables, unit) or f"{reply.why}; `journalctl -u {unit} -n 50` there"
                )
                done[unit] = f"does not {verb}: {why}"
                break
    return done


def _status(client: GatewayClient, connection: ConnectionSettings) -> replies.StatusState:
    return client.call(requests.Status, replies.StatusState, magic=connection.magic_number)


def unknown_at(answer: Answer[replies.StatusState]) -> Iterator[str]:
    """What is not well at a gateway, with what to do. Pure."""
    if answer.value is None:
        yield f"{answer.name}: its gateway does not answer: {answer.error}"
        return
    if answer.value.state != "ready":
        yield f"{answer.name}: its gateway is {answer.value.state}: {answer.value.reason}"
    for guard in answer.value.guards:
        for name in guard.unresolved:
            yield (
                f"{answer.name}: the fate of order {name} is not known: look in the terminal, then "
                f"`mt5crs … resolve {name} --magic {guard.magic} --reason …`"
            )


def halts_at(answer: Answer[replies.StatusState]) -> Iterator[str]:
    """Halts in force, with what lifts them: somebody set them. Pure."""
    for halt in answer.value.halts if answer.value is not None else ():
        by = f"`mt5crs … start --magic {halt.magic}`" if halt.magic else "`mt5crs … resume --reason …`"
        yield f"{answer.name}: {halt.magic or 'everything'} is halted by {halt.client}: {halt.reason}; {by}"


def text(report: Mapping[str, Any]) -> str:
    """In words."""
    told = report["started"].items()
    lines = [f"{host}: {unit} {how}" for host, of in told for unit, how in of.items() if how == STARTED]
    lines += [f"left: {why}" for why in report["left"]]
    lines += report["halts"]
    if not report["left"]:
        lines.append("every service runs, every gateway is ready, and the fate of every order is known")
    return "\n".join(lines)
