"""Commands that ask or tell the gateway: status, leases, positions, halt, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from mt5crs.checks.connection import env_file_option, json_option, load_connection
from mt5crs.checks.env_modes import env_files_of_host, readable_by_others
from mt5crs.checks.report import one_line_errors, table
from mt5crs.client.errors import GatewayError
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import HaltInfo


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _halts(halts: list[HaltInfo]) -> str:
    if not halts:
        return "no halt in force"
    rows = [(halt.magic or "fleet", halt.reason, halt.client, halt.since_msc) for halt in halts]
    return table(("HALTED", "REASON", "BY", "SINCE_MSC"), rows)


@click.command()
@env_file_option
@json_option
def status(env_file: Path | None, as_json: bool) -> None:
    """Show the gateway's state, limits, halts and queue. Exit 1 when it is not ready."""
    connection = load_connection(env_file)
    with one_line_errors(GatewayError), connection.client() as client:
        answer = client.call(requests.Status, replies.StatusState, magic=connection.magic_number)
    if as_json:
        _print_json(answer)
    else:
        identity = answer.identity
        account = f"{identity.login} at {identity.server} ({identity.trade_mode})" if identity else "unknown"
        click.echo(f"gateway {answer.version} {answer.state} {answer.reason}".rstrip())
        click.echo(f"account {account}")
        click.echo(f"up {answer.uptime_ms / 1000:.0f} s, queue {answer.queue_length} of {answer.queue_limit}")
        click.echo(_halts(answer.halts))
        rows = [
            (g.magic, g.dry_run, g.breaker_open, g.consecutive_failures, g.daily_profit, len(g.unresolved))
            for g in answer.guards
        ]
        click.echo(table(("MAGIC", "DRY_RUN", "BREAKER", "FAILURES", "TODAY", "UNRESOLVED"), rows))
    raise SystemExit(0 if answer.state == "ready" else 1)


@click.command()
@env_file_option
@json_option
def leases(env_file: Path | None, as_json: bool) -> None:
    """Show who holds the lease of each magic number."""
    connection = load_connection(env_file)
    with one_line_errors(GatewayError), connection.client() as client:
        answer = client.call(requests.Status, replies.StatusState, magic=connection.magic_number)
    if as_json:
        _print_json(answer.leases)
        return
    rows = [
        (held.magic, held.epoch, held.client, held.instance, f"{held.remaining_ms / 1000:.1f}")
        for held in answer.leases
    ]
    click.echo(table(("MAGIC", "EPOCH", "CLIENT", "INSTANCE", "SECONDS_LEFT"), rows))


@click.command()
@click.option("--all", "whole_account", is_flag=True, help="Every magic number, not only MAGIC_NUMBER.")
@env_file_option
@json_option
def positions(whole_account: bool, env_file: Path | None, as_json: bool) -> None:
    """Show open positions and working orders, straight from the broker."""
    connection = load_connection(env_file)
    whole_account = whole_account or connection.magic_number == 0
    with one_line_errors(GatewayError), connection.client() as client:
        answer = client.snapshot(connection.magic_number, history_since_msc=None, whole_account=whole_account)
    if as_json:
        _print_json({"positions": answer.positions, "orders": answer.orders, "digest": answer.digest})
        return
    rows = [
        (p.identifier, p.ticket, p.magic, p.symbol, p.type, p.volume, p.price_open, p.profit)
        for p in sorted(answer.positions, key=lambda p: p.identifier)
    ]
    click.echo(table(("POSITION", "TICKET", "MAGIC", "SYMBOL", "SIDE", "VOLUME", "OPEN", "PROFIT"), rows))
    if answer.orders:
        orders = [
            (o.ticket, o.magic, o.symbol, o.type, o.volume_current, o.price_open)
            for o in sorted(answer.orders, key=lambda o: o.ticket)
        ]
        click.echo(table(("ORDER", "MAGIC", "SYMBOL", "TYPE", "VOLUME", "PRICE"), orders))


_reason_option = click.option("--reason", required=True, help="Why; kept in the gateway's records.")
_magic_option = click.option(
    "--magic", type=click.IntRange(1), help="Only this magic number; without it the whole fleet."
)


@click.command()
@_reason_option
@_magic_option
@env_file_option
@json_option
def halt(reason: str, magic: int | None, env_file: Path | None, as_json: bool) -> None:
    """Stop all order flow at the gateway. Survives restarts; only `mt5crs resume` lifts it.

    Then looks whether anybody else can read an `.env` of this host, whose keys could lift the halt: exit
    status 1 if so, with the halt in force.
    """
    answer = _order_flow(requests.Halt, reason, magic, env_file, as_json=as_json)
    if not as_json:
        click.echo(f"{answer.in_flight} submissions were already in the broker's hands")
    if env_file is None:
        return
    files = env_files_of_host(env_file)
    wrong = [found for path in files if (found := readable_by_others(path))]
    for found in wrong:
        click.echo(f"the halt is in force, but {found}", err=True)
    if not wrong and not as_json:
        click.echo(f"only their owners can read the .env files of this host ({len(files)})")
    raise SystemExit(1 if wrong else 0)


@click.command()
@_reason_option
@_magic_option
@env_file_option
@json_option
def resume(reason: str, magic: int | None, env_file: Path | None, as_json: bool) -> None:
    """Lift the halt of the fleet, or of one magic number (this also closes its circuit breaker)."""
    _order_flow(requests.Resume, reason, magic, env_file, as_json=as_json)


def _order_flow(
    kind: type[requests.Halt | requests.Resume],
    reason: str,
    magic: int | None,
    env_file: Path | None,
    *,
    as_json: bool,
) -> replies.HaltState:
    """Send a HALT or RESUME, and show what is halted then."""
    connection = load_connection(env_file)
    scope, number = ("FLEET", connection.magic_number) if magic is None else ("MAGIC", magic)
    with one_line_errors(GatewayError), connection.client() as client:
        answer = client.call(kind, replies.HaltState, magic=number, scope=scope, reason=reason)
    if as_json:
        _print_json(answer)
    else:
        click.echo(_halts(answer.halts))
    return answer


@click.command()
@click.argument("client_order_id")
@_reason_option
@click.option("--magic", type=click.IntRange(1), required=True, help="Magic number of the order.")
@env_file_option
@json_option
def resolve(client_order_id: str, reason: str, magic: int, env_file: Path | None, as_json: bool) -> None:
    """Declare that an UNRESOLVED order was not executed, after a look at the terminal.

    The gateway refuses while the broker's books show anything of it.
    """
    connection = load_connection(env_file)
    with one_line_errors(GatewayError), connection.client() as client:
        answer = client.call(
            requests.OrderResolve,
            replies.OrderResult,
            magic=magic,
            client_order_id=client_order_id,
            reason=reason,
        )
    if as_json:
        _print_json(answer)
        return
    click.echo(f"{client_order_id} {answer.outcome} {answer.message}".rstrip())
