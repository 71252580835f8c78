"""`mt5crs --inventory … fleet`: one table of all hosts: what runs, whether that is wanted, who may trade.

Works on the controller and changes nothing. Hosts are asked over SSH, gateways with the operator's key, the
Hub's Prometheus for alerts; what could not be asked is unknown, never none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click
import msgspec

from deploy.commands.hosts import statuses
from deploy.commands.named_fleet import chosen_fleet, fleet_of, of_fleet
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.gateways import Answer, ask
from mt5crs.operate.report import table
from mt5crs.protocol import replies, requests

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

UNKNOWN = "unknown"
WELL, ATTENTION = 0, 2
_ALERTS_WITHIN = 2
"""Evaluations of the alert rules that are looked back at."""


@dataclass(frozen=True)
class Gateway:
    """What a gateway told at one moment."""

    status: replies.StatusState
    books: replies.Snapshot


@dataclass
class Row:
    """A host. `wrong`: what needs attention; `unknown`: what could not be found out, and why."""

    host: str
    runs: str = ""
    drift: str = ""
    trading: str = ""
    holds: str = ""
    alerts: str = ""
    wrong: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def runs_on(self, status: Mapping[str, Any] | str, differs: Sequence[str] | None) -> None:
        """Take in what the release tool said (or why it said nothing), and what a deployment would change."""
        if isinstance(status, str):
            self.runs = self.drift = UNKNOWN
            self.unknown.append(f"what runs ({status})")
            return
        told = []
        for name, of in status.get("services", {}).items():
            marks = _marks(of)
            self.wrong += [f"{name}: {mark}" for mark in marks]
            number = str(of.get("current") or "none").partition("-")[0]
            told.append(" ".join((name, number, *marks)))
        self.runs = ", ".join(told) or "nothing"
        if differs is None:
            self.drift = UNKNOWN
            self.unknown.append("drift (what is wanted could not be planned)")
            return
        self.drift = f"differs: {', '.join(differs)}" if differs else "as wanted"
        self.wrong += [f"{name} differs from the inventory" for name in differs]

    def is_gateway(self, answer: Answer[Gateway]) -> None:
        """Take in what the gateway on this host said."""
        if answer.value is None:
            self.trading = self.holds = UNKNOWN
            self.unknown.append(f"trading state and positions ({answer.error})")
            return
        status, books = answer.value.status, answer.value.books
        said = status.state if status.state == "ready" else f"{status.state}: {status.reason}"
        stops = [_halt(halt.magic, halt.reason) for halt in status.halts]
        self.trading = "; ".join((said, *stops))
        self.wrong += ([f"gateway {said}"] if status.state != "ready" else []) + stops
        self.holds = _held(len(books.positions), len(books.orders))

    def trades(self, magic: int, gateway: str, answer: Answer[Gateway] | None) -> None:
        """Take in what its gateway said of the magic number that this host trades."""
        if answer is None or answer.value is None:
            self.trading = self.holds = UNKNOWN
            why = answer.error if answer is not None else f"{gateway} is no gateway of this fleet"
            self.unknown.append(f"trading state and positions of {magic} ({why})")
            return
        status, books = answer.value.status, answer.value.books
        stops = [_halt(halt.magic, halt.reason) for halt in status.halts if halt.magic in (0, magic)]
        for guard in status.guards:
            if guard.magic == magic:
                stops += ["breaker open"] if guard.breaker_open else []
                stops += [f"{len(guard.unresolved)} unresolved"] if guard.unresolved else []
        leased = any(lease.magic == magic for lease in status.leases)
        self.trading = "; ".join((f"{magic} {'leased' if leased else 'without a lease'}", *stops))
        self.wrong += stops
        self.holds = _held(
            sum(one.magic == magic for one in books.positions),
            sum(one.magic == magic for one in books.orders),
        )


def _marks(of: Mapping[str, Any]) -> list[str]:
    """What is not as it should be of a service, in words for the table."""
    marks = [] if of.get("state") == "confirmed" else [str(of.get("state") or "never deployed")]
    from deploy.rollout.generation import drop_ins, not_as_staged

    marks += [beside] if (beside := drop_ins(of)) else []
    if of.get("intact") is not True and of.get("current"):
        marks.append(not_as_staged(of) if of.get("intact") is False else "intact unknown")
    down = [unit for unit, state in (of.get("units") or {}).items() if state != "active"]
    return marks + [f"{unit} {of['units'][unit]}" for unit in down]


def _halt(magic: int, reason: str) -> str:
    return f"HALTED {magic if magic else 'all'} ({reason})"


def _held(positions: int, orders: int) -> str:
    counts = ((positions, "position"), (orders, "working order"))
    return ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for number, what in counts)


@click.command()
@json_option
def fleet(as_json: bool) -> None:
    """Show every host: generations, drift, trading state, halts, positions, alerts. Changes nothing.

    Exit status 0: all well; 2: something needs attention; 1: something could not be found out.
    """
    chosen = chosen_fleet("fleet")
    of = fleet_of(chosen.inventory)
    with ThreadPoolExecutor(2) as pool:
        gateways = pool.submit(_gateways, of, chosen.operator)
        alerts = pool.submit(_alerts, of)
        rows = _rows(of, statuses(of), gateways.result())
        fired = alerts.result()
    elsewhere = _with_alerts(rows, fired)
    if as_json:
        told = {
            row.host: {name: value for name, value in asdict(row).items() if name != "host"} for row in rows
        }
        click.echo(json.dumps({"hosts": told, "alerts": fired if isinstance(fired, str) else elsewhere}))
    else:
        headings = ("HOST", "RUNS", "DRIFT", "TRADING", "HOLDS", "ALERTS")
        cells = [(row.host, row.runs, row.drift, row.trading, row.holds, row.alerts) for row in rows]
        click.echo(table(headings, [tuple(cell or "-" for cell in one) for one in cells]))
        for alert in elsewhere:
            click.echo(f"alert of no host: {alert}")
        for row in rows:
            for why in row.unknown:
                click.echo(f"{row.host}: unknown: {why}", err=True)
        if isinstance(fired, str):
            click.echo(f"alerts: unknown: {fired}", err=True)
    unknown = isinstance(fired, str) or any(row.unknown for row in rows)
    wrong = bool(elsewhere) or any(row.wrong for row in rows)
    raise SystemExit(1 if unknown else ATTENTION if wrong else WELL)


def _gateways(of: Fleet, operator: str | None) -> dict[str, Answer[Gateway]]:
    return {answer.name: answer for answer in ask(of_fleet(of, operator), _look)}


def _look(client: GatewayClient, connection: ConnectionSettings) -> Gateway:
    def status() -> replies.StatusState:
        return client.call(requests.Status, replies.StatusState, magic=connection.magic_number)

    before, books = status(), client.snapshot(0, history_since_msc=None, whole_account=True)
    if any(guard.unresolved for guard in before.guards):
        before = settled(before, status())
    return Gateway(before, books)


def settled(before: replies.StatusState, later: replies.StatusState) -> replies.StatusState:
    """Without the orders that were at the broker at that moment. Pure.

    later: asked after the books, which wait until the broker has answered.
    """
    still = {(guard.magic, name) for guard in later.guards for name in guard.unresolved}
    guards = [
        msgspec.structs.replace(
            guard, unresolved=[name for name in guard.unresolved if (guard.magic, name) in still]
        )
        for guard in before.guards
    ]
    return msgspec.structs.replace(before, guards=guards)


def _alerts(of: Fleet) -> list[tuple[str, str]] | str:
    """(host, alert) of what fires, or why that is not known."""
    from deploy.coordination import alerts

    hubs = of.in_group("hub")
    if not hubs:
        return "the inventory has no Hub"
    variables = of.hosts[hubs[0]]
    within_s = _ALERTS_WITHIN * int(variables["monitoring_scrape_interval_s"])
    try:
        found = alerts.on_hub(variables)(within_s, 0)
    except alerts.UnknownError as error:
        return str(error)
    return sorted((alert.host, f"{alert.name} ({alert.severity})") for alert in found)


def _rows(
    of: Fleet, told: Mapping[str, Mapping[str, Any] | str], gateways: Mapping[str, Answer[Gateway]]
) -> list[Row]:
    from deploy.rollout import plan
    from deploy.rollout.batches import OrderError
    from deploy.rollout.generation import BundleError

    known = {host: status for host, status in told.items() if not isinstance(status, str)}
    differs: dict[str, list[str]] | None = {host: [] for host in known}
    try:
        for (host, service), work in (plan.make(of, known).work if known else {}).items():
            if not work.todo.nothing and differs is not None:
                differs[host].append(service)
    except (BundleError, OrderError):
        differs = None
    rows = []
    for host in of.hosts:
        row = Row(host)
        row.runs_on(told[host], differs.get(host) if differs is not None else None)
        if host in gateways:
            row.is_gateway(gateways[host])
        elif host in of.in_group("inf"):
            through = str(of.hosts[host]["fleet_gateway"])
            row.trades(int(of.hosts[host]["fleet_magic_number"]), through, gateways.get(through))
        rows.append(row)
    return rows


def _with_alerts(rows: Sequence[Row], fired: Sequence[tuple[str, str]] | str) -> list[str]:
    """Give each host its alerts; return those that are about no host of the fleet."""
    by_host = {row.host: row for row in rows}
    if isinstance(fired, str):
        for row in rows:
            row.alerts = UNKNOWN
        return []
    for row in rows:
        mine = [name for host, name in fired if host == row.host]
        row.alerts = ", ".join(dict.fromkeys(mine)) or "none"
        row.wrong += mine
    return [f"{name}{f' of {host}' if host else ''}" for host, name in fired if host not in by_host]
