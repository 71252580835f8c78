"""`mt5crs --inventory … webhook`: what the signed webhook did not accept; tried again, or forgotten."""

from __future__ import annotations

import json
from typing import Any

import click

from deploy.commands.named_fleet import chosen_fleet, fleet_of
from mt5crs.foreign_text import shown_tree
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import table

_TIMEOUT_S = 40


@click.group()
def webhook() -> None:
    """Show what the Hub's signed webhook did not accept, have it tried again, or forget it."""


@webhook.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show dead letters, and what is still tried. Exit status 1: there are dead letters."""
    found = _asked(None, None)
    if as_json:
        click.echo(json.dumps(found))
    else:
        rows = [_row(each) for each in (*found["dead"], *found["waiting"])]
        if rows:
            click.echo(table(("ID", "SINCE (UTC)", "STATE", "TRIES", "ALERTS", "WHY"), rows))
        if found["not_kept"]:
            click.echo(f"a restart of the Hub would lose them: {found['not_kept']}", err=True)
        if not rows:
            click.echo("nothing is undelivered" if found["on"] else "hub_webhook_url is not set")
    raise SystemExit(int(bool(found["dead"])))


def _of(act: str, words: str) -> click.Command:
    @click.command(act, help=words)
    @click.argument("ids", nargs=-1, metavar="[ID]…")
    @click.option("--all", "every", is_flag=True, help="All dead letters.")
    def command(ids: tuple[str, ...], every: bool) -> None:
        if bool(ids) == every:
            raise click.UsageError("name dead letters by their ID (webhook list), or all with --all")
        done = _asked(act, None if every else list(ids))["done"]
        acted("webhook.retried" if act == "retry" else "webhook.forgotten", letters=done, ids=list(ids))
        click.echo(f"{done} {'are tried again' if act == 'retry' else 'forgotten'}")
        if done < len(ids):
            raise click.ClickException(f"{len(ids) - done} of these are no dead letters; see webhook list")

    return command


webhook.add_command(_of("retry", "Try dead letters again, from now on as often as new ones."))
webhook.add_command(_of("forget", "Forget dead letters: nobody gets them any more."))


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    from deploy.incidents.record import clock

    what = f"{each['status']}: {', '.join(each['alerts'])}"
    state = "dead letter" if each["dead"] else "waiting"
    return (each["id"], clock(each["at"]), state, str(each["tries"]), what, each["reason"])


def _asked(act: str | None, ids: list[str] | None) -> dict[str, Any]:
    from deploy.remote import dead_letters, script

    of = fleet_of(chosen_fleet("webhook list").inventory)
    hubs = of.in_group("hub")
    if not hubs:
        raise click.UsageError("the inventory has no Hub, so nothing signs and forwards alerts")
    try:
        told = json.dumps({"act": act, "ids": ids})
        answer = script.ask(of.hosts[hubs[0]], dead_letters, stdin=told, timeout_s=_TIMEOUT_S)
    except script.ScriptError as error:
        raise click.ClickException(f"the Hub: {error}") from None
    return dict(shown_tree(answer))
