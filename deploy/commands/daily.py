"""`mt5crs --inventory … report`: a day of the fleet as HTML, JSON and text, from what was recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.named_fleet import chosen_fleet, fleet_of, of_fleet
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.operate.gateways import ask
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import Deal

if TYPE_CHECKING:
    from deploy.daily.asking import Account
    from deploy.fleet.inventory import Fleet

_PAGE = 10_000
_TRIES = 5


@click.command()
@click.option("--date", metavar="YYYYMMDD", help="The broker's day; by default its yesterday.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the files; by default reports/daily of the project.",
)
def report(date: str | None, as_json: bool, output: Path | None) -> None:
    """Report a day of the fleet: money, orders, latency, alerts, deployments, what stands out.

    Written as HTML, JSON and text. What is not known is said, with the reason, and never shown as zero.

    Exit status 1: the report cannot be made, or something in it is not known.
    """
    chosen = chosen_fleet("report")
    from deploy.daily import page
    from deploy.daily.asking import document
    from deploy.daily.reckoning import DAY_MS, bounds
    from deploy.fleet.vault_password import PROJECT

    of = fleet_of(chosen.inventory)
    accounts = _accounts(of, chosen.operator)
    now = max(
        (one.now_msc for one in accounts.values() if not isinstance(one, str)),
        default=int(time.time() * 1000),
    )
    date = date or time.strftime("%Y%m%d", time.gmtime((now - DAY_MS) / 1000))
    try:
        first, _ = bounds(date)
    except ValueError as error:
        raise click.UsageError(f"--date: {error}") from None
    if first > now:
        raise click.UsageError(f"--date: {date} has not begun at the broker")
    made = document(of, date, accounts)
    directory = output if output is not None else PROJECT / "reports" / "daily"
    words = page.text(made)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        base = directory / f"{of.environment}-{date}"
        base.with_suffix(".json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        base.with_suffix(".txt").write_text(words + "\n", encoding="utf-8")
        base.with_suffix(".html").write_text(page.html(made), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be written: {error.strerror}") from None
    click.echo(json.dumps(made) if as_json else f"{words}\n{base.with_suffix('.html')}")
    raise SystemExit(int(unknown(made)))


def unknown(made: Mapping[str, Any]) -> bool:
    """Whether a section of a report has no data."""
    sections = [made["latency"], made["alerts"], made["deployments"]]
    sections += [one[name] for one in made["gateways"] for name in ("money", "orders", "halts")]
    return any("no_data" in section for section in sections)


def _accounts(of: Fleet, operator: str | None) -> dict[str, Account | str]:
    return {
        answer.name: answer.error if answer.value is None else answer.value
        for answer in ask(of_fleet(of, operator), account_of)
    }


def account_of(client: GatewayClient, connection: ConnectionSettings) -> Account | str:  # noqa: ARG001
    """All deals of an account and the balance that goes with them; a text says why they are not known."""
    from deploy.daily.asking import Account

    for _ in range(_TRIES):
        before = client.call(requests.AccountQuery, replies.AccountState, magic=0)
        deals = _deals(client)
        after = client.call(requests.AccountQuery, replies.AccountState, magic=0)
        if before.account.balance == after.account.balance:
            identity = after.identity
            return Account(
                identity.login, after.account.currency, deals, after.account.balance, after.time_msc
            )
    return f"the balance changed at each of {_TRIES} looks; ask again when less is traded"


def _deals(client: GatewayClient) -> list[Deal]:
    found: dict[int, Deal] = {}
    since, complete = 0, False
    while not complete:
        page = client.call(requests.HistoryQuery, replies.HistoryState, magic=0, since_msc=since, limit=_PAGE)
        new = [deal for deal in page.deals if deal.ticket not in found]
        found |= {deal.ticket: deal for deal in new}
        complete = page.complete or not new
        since = max((deal.time_msc for deal in page.deals), default=since)
    return list(found.values())
