"""`mt5crs --inventory … stop`: a magic number stops, and a report of what it did since its start."""

from __future__ import annotations

import getpass
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from msgspec import Struct

from deploy.commands.daily import account_of
from deploy.commands.named_fleet import chosen_fleet, fleet_of
from deploy.commands.start import STARTED
from mt5crs.client.gateway import GatewayClient
from mt5crs.foreign_text import shown_tree
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Target
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.flatten import begun
from mt5crs.operate.gateways import Answer, ask, targets
from mt5crs.operate.reason import a_reason
from mt5crs.protocol import replies, requests
from mt5crs_release.records.audit_chain import records_of

if TYPE_CHECKING:
    from deploy.daily.asking import Account
    from deploy.fleet.inventory import Fleet

T = TypeVar("T")


@click.command()
@click.option("--magic", type=click.IntRange(1), required=True, help="The magic number.")
@click.option("--reason", required=True, callback=a_reason, help="Why; kept in the records.")
@click.option("--reduce", "reducing", is_flag=True, help="No halt: it may still close, cancel and reduce.")
@json_option
def stop(magic: int, reason: str, reducing: bool, as_json: bool) -> None:
    """Stop a magic number, and report what it did since its start.

    Halts it (with --reduce it may go on closing), then tells: how long it ran, trades and result, orders,
    what is open, alerts meanwhile, why it stopped and by whom. Nothing is closed or cancelled. What cannot be
    found out is said to be unknown. Stopped already: the report of the run that ended then.

    Exit status 1: a gateway did not answer, so it may still trade, or something in the report is not known.
    """
    chosen = chosen_fleet("stop --magic N --reason …")
    of = fleet_of(chosen.inventory)
    gateways = targets(None, magic)
    begun(
        f"lets magic number {magic} only reduce"
        if reducing
        else f"halts magic number {magic}; what is open stays",
        gateways,
    )

    def call(client: GatewayClient, _connection: ConnectionSettings) -> Stopped:
        return _reduced(client, magic, reason) if reducing else _halted(client, magic, reason)

    answers = ask(gateways, call)
    to = "REDUCING" if reducing else "HALTED"
    acted("trading.stopped", answers, magic=magic, reason=reason, to=to)
    for answer in answers:
        if answer.value is None:
            click.echo(f"error: {answer.name}: {answer.error}; it may still trade there", err=True)
    silent = {answer.name: answer.error for answer in answers if answer.value is None}
    heard = [target for target in gateways if target.name not in silent]
    books = [*_ask(heard, lambda client, _: _open(client, magic)), *_not_asked(silent)]
    accounts = silent | {
        answer.name: answer.error if answer.value is None else answer.value
        for answer in _ask(heard, account_of)
    }
    report = report_of(of, magic, answers, books, accounts)
    click.echo(json.dumps(report) if as_json else text(report))
    raise SystemExit(int(any(answer.value is None for answer in answers) or unknown(report)))


def _ask(of: Sequence[Target], call: Callable[[GatewayClient, ConnectionSettings], T]) -> list[Answer[T]]:
    return ask(of, call) if of else []


def _not_asked(silent: Mapping[str, str]) -> list[Answer[Any]]:
    """Who did not answer a moment ago need not be waited for again."""
    return [Answer(name, None, error) for name, error in silent.items()]


class Stopped(Struct, frozen=True):
    """What is in force at a gateway, by whom, why and since when (Unix time). `already`: it was before."""

    state: str
    by: str
    why: str
    at: float
    already: bool


def _halted(client: GatewayClient, magic: int, reason: str) -> Stopped:
    """Halt it. Nothing in it needs the terminal. Raises GatewayError."""
    before = client.call(requests.Status, replies.StatusState, magic=magic).halts
    now = client.call(requests.Halt, replies.HaltState, magic=magic, scope="MAGIC", reason=reason).halts
    first = min((halt for halt in now if halt.magic in (0, magic)), key=lambda halt: halt.since_msc)
    return Stopped("HALTED", first.client, first.reason, first.since_msc / 1000, first in before)


def _reduced(client: GatewayClient, magic: int, reason: str) -> Stopped:
    """Let it only reduce. Raises GatewayError."""
    state = client.call(
        requests.PhaseTrading, replies.PhaseState, magic=magic, state="REDUCING", reason=reason
    )
    return reduced_since(state)


def reduced_since(state: replies.PhaseState) -> Stopped:
    """Since when a magic number may only reduce, by its acts (newest first, ours is among them). Pure."""
    changes = [act for act in state.acts if act.magic == state.magic and act.act in ("reducing", "active")]
    in_force = list(itertools.takewhile(lambda act: act.act == "reducing", changes))
    first = in_force[-1]
    return Stopped(state.trading, first.by, first.reason, first.at_msc / 1000, len(in_force) > 1)


def report_of(
    of: Fleet,
    magic: int,
    answers: Sequence[Answer[Stopped]],
    books: Sequence[Answer[dict[str, Any]]],
    accounts: Mapping[str, Account | str],
) -> dict[str, Any]:
    """The stop report as plain values; a section without data says why."""
    from deploy.daily import of_run

    ended = min((answer.value.at for answer in answers if answer.value), default=time.time())
    began = began_of(of, magic, ended)
    run: dict[str, Any] = {"no_data": began}
    if not isinstance(began, str):
        run = {"value": {"began": _iso(began), "ended": _iso(ended), "seconds": round(ended - began, 1)}}
    made = {
        "environment": of.environment,
        "magic": magic,
        "reported_by": getpass.getuser(),
        "stopped": {answer.name: _section(answer) for answer in answers},
        "run": run,
        "open": {answer.name: _section(answer) for answer in books},
        **of_run.document(of, magic, began, ended, accounts),
    }
    safe: dict[str, Any] = shown_tree(made)
    return safe


def _section(answer: Answer[Any]) -> dict[str, Any]:
    return {"no_data": answer.error} if answer.value is None else {"value": msgspec.to_builtins(answer.value)}


def began_of(of: Fleet, magic: int, ended: float) -> float | str:
    """When a magic number was last started before it ended (Unix time), or why that is not known."""
    from deploy.coordination import audit_log

    try:
        log = audit_log.fetch(audit_log.reach_of(of))
    except audit_log.LogError as error:
        return f"when it was started is not known: {error}"
    found = []
    for record in records_of(log.records):
        of_it = record.get("what") == STARTED and record.get("magic") == magic
        if of_it and isinstance(record.get("began_msc"), int):
            found.append(record["began_msc"] / 1000)
    fitting = [at for at in found if at <= ended]
    return max(fitting) if fitting else f"no start of {magic} before {_iso(ended)} is in the audit log"


def _open(client: GatewayClient, magic: int) -> dict[str, Any]:
    books = client.snapshot(magic, history_since_msc=None, whole_account=False)
    positions = [
        {
            "identifier": p.identifier,
            "symbol": p.symbol,
            "side": p.type,
            "volume": p.volume,
            "profit": p.profit,
        }
        for p in books.positions
    ]
    orders = [
        {
            "ticket": o.ticket,
            "symbol": o.symbol,
            "type": o.type,
            "volume": o.volume_current,
            "price": o.price_open,
        }
        for o in books.orders
    ]
    return {"positions": positions, "orders": orders, "unresolved": list(books.unresolved)}


def unknown(report: Mapping[str, Any]) -> bool:
    """Whether something in it is not known."""
    return any("no_data" in section for _, section in _sections(report))


def _sections(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "run time", report["run"]
    for name in ("money", "orders", "acts", "open"):
        for gateway, section in report[name].items():
            yield f"{gateway}: {_TITLES.get(name, name)}", section
    yield "alerts", report["alerts"]


_TITLES = {"acts": "halts and resumes", "money": "trades"}


def text(report: Mapping[str, Any]) -> str:
    """The report in words."""
    lines = [f"stop report of {report['magic']} in {report['environment']}"]
    for name, told in report["stopped"].items():
        if "no_data" in told:
            lines.append(f"{name}: whether it stopped is NOT KNOWN: {told['no_data']}")
            continue
        one = told["value"]
        was = "had been stopped already" if one["already"] else "stopped"
        lines.append(f"{name}: {was}, {one['state']}, {_iso(one['at'])} by {one['by']}: {one['why']}")
    for title, section in _sections(report):
        if "no_data" in section:
            lines.append(f"{title}: unknown: {section['no_data']}")
        else:
            lines.append(f"{title}: {_words(title.rpartition(': ')[2], section['value'])}")
    return "\n".join(lines)


def _words(title: str, value: Any) -> str:
    if title == "run time":
        return f"{value['seconds']:.0f} s, {value['began']} to {value['ended']}"
    if title == "trades":
        return (
            f"{value['trades']} trades, {value['wins']} won, result {value['result']} {value['currency']} "
            f"({value['deals']} deals)"
        )
    if title == "orders":
        told = (
            f"{one['count']} {one['kind']} {one['result']}" + (f" ({one['reason']})" if one["reason"] else "")
            for one in value
        )
        return "; ".join(told) or "none was submitted"
    if title == "halts and resumes":
        return "; ".join(f"{one['act']} by {one['client']}: {one['reason']}" for one in value) or "none"
    if title == "alerts":
        return (
            "; ".join(
                f"{one['alertname']} ({one['severity']}) of {one['host'] or 'no host'}" for one in value
            )
            or "none"
        )
    return _open_words(value)


def _open_words(value: Mapping[str, Any]) -> str:
    held = [f"{p['symbol']} {p['side']} {p['volume']:g} ({p['profit']:+g})" for p in value["positions"]]
    waits = [f"{o['symbol']} {o['type']} {o['volume']:g} at {o['price']:g}" for o in value["orders"]]
    parts = [
        f"{len(held)} positions" + (f" [{', '.join(held)}]" if held else ""),
        f"{len(waits)} working orders" + (f" [{', '.join(waits)}]" if waits else ""),
    ]
    if value["unresolved"]:
        parts.append(f"fate not known: {', '.join(value['unresolved'])}")
    return ", ".join(parts)


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
