"""`mt5crs --inventory … shadow`: what a new strategy decides in the shadow of the old one; promote, drop."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.named_fleet import chosen_fleet, fleet_of
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import json_option
from mt5crs.operate.reason import a_reason

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_SERVICE = "strategy"
_HOST_S = 30
_host = click.option("--host", metavar="HOST", help="One Inf host; by default all of them.")
_reason = click.option(
    "--reason", required=True, callback=a_reason, help="Why; kept in the fleet's audit log."
)


@click.group()
def shadow() -> None:
    """A new strategy that runs in the shadow of the old one (a roll-out with strategy=shadow)."""


@shadow.command()
@_host
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page with a plot as well."
)
@json_option
def show(host: str | None, html: Path | None, as_json: bool) -> None:
    """Compare what both decide, so far or in the last comparison of each host.

    Exit status 1: a host does not answer, or none has such a comparison.
    """
    of = fleet_of(chosen_fleet("shadow show").inventory)
    from deploy.reporting import shadow_page

    told = _ask(of, host, "show")
    if html is not None:
        try:
            html.write_text(shadow_page.html(told), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{html} cannot be written: {error.strerror}") from None
    click.echo(json.dumps(told) if as_json else shadow_page.text(told))
    if html is not None:
        click.echo(f"written: {html}", err=True)
    raise SystemExit(int(not _known(told)))


@shadow.command()
@_host
@_reason
def promote(host: str | None, reason: str) -> None:
    """Let the new strategy go on now, whatever the figures say; the roll-out that waits for it goes on.

    Exit status 1: on some host that was asked for, or on all, no new strategy runs in the shadow.
    """
    _say("promote", host, reason)


@shadow.command()
@_host
@_reason
def drop(host: str | None, reason: str) -> None:
    """Take the new strategy back now; the roll-out that waits for it ends and puts everything back.

    Exit status 1: as `promote`.
    """
    _say("drop", host, reason)


def _say(word: str, host: str | None, reason: str) -> None:
    of = fleet_of(chosen_fleet(f"shadow {word} --reason …").inventory)
    told = _ask(of, host, word, "--by", f"{getpass.getuser()}: {reason}")
    done = {name: one for name, one in told.items() if one.get("changed")}
    for name, one in told.items():
        if name in done or host is not None or not done:
            click.echo(f"{name}: {one['reason'] if name in done else one['unknown']}")
    if done:
        names = [f"{name} {one['generation']}" for name, one in done.items()]
        acted("strategy.promoted" if word == "promote" else "strategy.dropped", reason=reason, hosts=names)
    raise SystemExit(int(not done))


def _ask(of: Fleet, host: str | None, *words: str) -> dict[str, dict[str, Any]]:
    """Host → what its release tool answers, or `unknown`: why there is no answer."""
    there = of.in_group("inf")
    if host is not None and host not in there:
        raise click.UsageError(f"name an Inf host of {of.inventory}: {', '.join(there) or 'it has none'}")
    hosts = [host] if host is not None else list(there)
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return dict(zip(hosts, pool.map(lambda name: _of(of.hosts[name], words), hosts), strict=True))


def _of(variables: Mapping[str, Any], words: tuple[str, ...]) -> dict[str, Any]:
    from deploy.remote import ssh

    reply = ssh.run(variables, [ssh.TOOL, "shadow", _SERVICE, *words, "--json"], timeout_s=_HOST_S)
    if reply.status != 0 or reply.document is None:
        return {"unknown": reply.why}
    return reply.document


def _known(told: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether every host has answered, and one at least has something to show."""
    return all("unknown" not in one for one in told.values()) and any(
        one.get("shadow") for one in told.values()
    )
