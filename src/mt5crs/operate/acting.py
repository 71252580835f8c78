"""Commands that ask or tell gateways: status, positions, halt and the like. One gateway, or a fleet's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Chosen
from mt5crs.operate.connection import ConnectionSettings, chosen_file, env_file_option, json_option
from mt5crs.operate.env_modes import env_files_of_host, readable_by_others
from mt5crs.operate.flatten import begun
from mt5crs.operate.gateways import Answer, ask, show, targets
from mt5crs.operate.report import table
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import HaltInfo, Order


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
    answers = ask(targets(env_file), _status)
    failed = show(answers, _status_text, as_json=as_json)
    ready = all(answer.value is not None and answer.value.state == "ready" for answer in answers)
    raise SystemExit(failed or (0 if ready else 1))


def _status(client: GatewayClient, connection: ConnectionSettings) -> replies.StatusState:
    return client.call(requests.Status, replies.StatusState, magic=connection.magic_number)


def _status_text(answer: replies.StatusState) -> str:
    identity = answer.identity
    account = f"{identity.login} at {identity.server} ({identity.trade_mode})" if identity else "unknown"
    rows = [
        (
            *(g.magic, g.dry_run, g.breaker_open, g.consecutive_failures),
            "unknown" if g.daily_profit is None else g.daily_profit,
            len(g.unresolved),
        )
        for g in answer.guards
    ]
    return "\n".join(
        (
            f"gateway {answer.version} {answer.state} {answer.reason}".rstrip(),
            f"account {account}",
            f"up {answer.uptime_ms / 1000:.0f} s, queue {answer.queue_length} of {answer.queue_limit}",
            _halts(answer.halts),
            table(("MAGIC", "DRY_RUN", "BREAKER", "FAILURES", "TODAY", "UNRESOLVED"), rows),
        )
    )


@click.command()
@env_file_option
@json_option
def leases(env_file: Path | None, as_json: bool) -> None:
    """Show who holds the lease of each magic number."""

    def text(answer: replies.StatusState) -> str:
        rows = [
            (held.magic, held.epoch, held.client, held.instance, f"{held.remaining_ms / 1000:.1f}")
            for held in answer.leases
        ]
        return table(("MAGIC", "EPOCH", "CLIENT", "INSTANCE", "SECONDS_LEFT"), rows)

    answers = ask(targets(env_file), _status)
    raise SystemExit(show(answers, text, as_json=as_json, plain=lambda answer: answer.leases))


@click.command()
@click.option("--all", "whole_account", is_flag=True, help="Every magic number, not only MAGIC_NUMBER.")
@env_file_option
@json_option
def positions(whole_account: bool, env_file: Path | None, as_json: bool) -> None:
    """Show open positions and working orders, straight from the broker."""

    def books(client: GatewayClient, connection: ConnectionSettings) -> replies.Snapshot:
        magic = connection.magic_number
        return client.snapshot(magic, history_since_msc=None, whole_account=whole_account or magic == 0)

    def plain(answer: replies.Snapshot) -> dict[str, Any]:
        return {"positions": answer.positions, "orders": answer.orders, "digest": answer.digest}

    answers = ask(targets(env_file), books)
    raise SystemExit(show(answers, _books_text, as_json=as_json, plain=plain))


def _books_text(answer: replies.Snapshot) -> str:
    rows = [
        (p.identifier, p.ticket, p.magic, p.symbol, p.type, p.volume, p.price_open, p.profit)
        for p in sorted(answer.positions, key=lambda p: p.identifier)
    ]
    lines = [table(("POSITION", "TICKET", "MAGIC", "SYMBOL", "SIDE", "VOLUME", "OPEN", "PROFIT"), rows)]
    if answer.orders:
        lines.append(_working_text(answer.orders))
    return "\n".join(lines)


def _working_text(orders: Sequence[Order]) -> str:
    rows = [
        (o.ticket, o.magic, o.symbol, o.type, o.volume_current, o.price_open)
        for o in sorted(orders, key=lambda o: o.ticket)
    ]
    return table(("ORDER", "MAGIC", "SYMBOL", "TYPE", "VOLUME", "PRICE"), rows)


class _Orders(msgspec.Struct, frozen=True):
    """Orders of all magic numbers: working at the broker; magic number → client order ids of unknown fate."""

    working: Sequence[Order]
    unresolved: Mapping[int, Sequence[str]]


@click.command()
@env_file_option
@json_option
def orders(env_file: Path | None, as_json: bool) -> None:
    """Show the working orders of every magic number, and the orders whose fate nobody knows.

    Of the latter by the id that `resolve` wants. Exit status 1 if there is one, or a gateway does not say.
    """

    def look(client: GatewayClient, connection: ConnectionSettings) -> _Orders:
        status = _status(client, connection)
        books = client.snapshot(connection.magic_number, history_since_msc=None, whole_account=True)
        unresolved = {guard.magic: guard.unresolved for guard in status.guards if guard.unresolved}
        return _Orders(books.orders, unresolved)

    answers = ask(targets(env_file), look)
    failed = show(answers, _orders_text, as_json=as_json)
    unknown = any(answer.value.unresolved for answer in answers if answer.value is not None)
    raise SystemExit(failed or (1 if unknown else 0))


def _orders_text(of: _Orders) -> str:
    lines = [_working_text(of.working) if of.working else "no working order"]
    rows = [(name, magic) for magic, names in sorted(of.unresolved.items()) for name in names]
    lines.append(table(("FATE NOT KNOWN", "MAGIC"), rows) if rows else "no order whose fate is not known")
    return "\n".join(lines)


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

    With `mt5crs --inventory` at every gateway of the fleet. Then looks whether anybody else can read an
    `.env` of the hosts, whose keys could lift the halt: exit status 1 if so, with the halt in force.
    """
    answers = _order_flow(requests.Halt, reason, magic, env_file)

    def text(answer: replies.HaltState) -> str:
        return f"{_halts(answer.halts)}\n{answer.in_flight} submissions were already in the broker's hands"

    failed = show(answers, text, as_json=as_json)
    acted("halt", answers, magic=magic, reason=reason)
    if all(answer.value is None for answer in answers):
        raise SystemExit(failed)
    in_force = "the halt is in force" + (" where it says so" if failed else "")
    chosen = click.get_current_context().find_root().obj
    if isinstance(chosen, Chosen):
        looked, wrong = chosen.controller().wrong_env_modes()
    elif (file := chosen_file(env_file)) is not None:
        files = env_files_of_host(file)
        looked, wrong = len(files), [found for path in files if (found := readable_by_others(path))]
    else:
        raise SystemExit(failed)
    for found in wrong:
        click.echo(f"{in_force}, but {found}", err=True)
    if not wrong and not as_json:
        click.echo(f"only their owners can read the .env files ({looked})")
    raise SystemExit(1 if wrong else failed)


@click.command()
@_reason_option
@_magic_option
@env_file_option
@json_option
def resume(reason: str, magic: int | None, env_file: Path | None, as_json: bool) -> None:
    """Lift the halt of the fleet, or of one magic number (this also closes its circuit breaker)."""
    answers = _order_flow(requests.Resume, reason, magic, env_file)
    failed = show(answers, lambda answer: _halts(answer.halts), as_json=as_json)
    acted("resume", answers, magic=magic, reason=reason)
    raise SystemExit(failed)


def _order_flow(
    kind: type[requests.Halt | requests.Resume], reason: str, magic: int | None, env_file: Path | None
) -> list[Answer[replies.HaltState]]:
    """Send a HALT or RESUME; the answers say what is halted then."""

    def call(client: GatewayClient, connection: ConnectionSettings) -> replies.HaltState:
        scope, number = ("FLEET", connection.magic_number) if magic is None else ("MAGIC", magic)
        return client.call(kind, replies.HaltState, magic=number, scope=scope, reason=reason)

    of = targets(env_file, magic)
    if kind is requests.Halt:
        begun(f"halts {f'magic number {magic}' if magic else 'everything'}; what is open stays", of)
    return ask(of, call)


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

    def call(client: GatewayClient, _connection: ConnectionSettings) -> replies.OrderResult:
        return client.call(
            requests.OrderResolve,
            replies.OrderResult,
            magic=magic,
            client_order_id=client_order_id,
            reason=reason,
        )

    def text(answer: replies.OrderResult) -> str:
        return f"{client_order_id} {answer.outcome} {answer.message}".rstrip()

    answers = ask(targets(env_file, magic), call)
    failed = show(answers, text, as_json=as_json)
    acted("order.resolved", answers, magic=magic, order=client_order_id, reason=reason)
    raise SystemExit(failed)
