"""Collects a day: hosts over SSH; what gateways say is given by the caller. Makes one document of it all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from deploy.daily import on_host, reckoning
from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.remote import script
from mt5crs.foreign_text import shown_tree
from mt5crs.protocol.records import Deal

FORMAT = 1
_TIMEOUT_S = 90
_REJECTED_SHARE, _REJECTED_LEAST = 0.2, 5
_SLOW_S = 1.0
_LOSS_SHARE = Decimal("0.02")

ANOMALIES = {
    "rejects": f"{_REJECTED_LEAST} orders of a gateway or more, and {_REJECTED_SHARE:.0%}, were turned down.",
    "fills": "Orders were sent, and none was executed.",
    "unresolved": "The fate of an order of the day is not known.",
    "latency": f"P95 of a strategy's order calls is above {_SLOW_S:g} s.",
    "loss": f"The day lost more than {_LOSS_SHARE:.0%} of the opening balance.",
}
"""What counts as one; printed in every report."""


@dataclass(frozen=True)
class Account:
    """What a gateway says of its account: all its deals, its balance then, and the broker's time."""

    login: int
    currency: str
    deals: Sequence[Deal]
    balance: float
    now_msc: int


def document(fleet: Fleet, date: str, accounts: Mapping[str, Account | str]) -> dict[str, Any]:
    """The report of a day as plain values. accounts: by gateway; a text says why one is not known."""
    first, last = reckoning.bounds(date)
    made = time.time()
    told = _ask_all(fleet, first, last, made, accounts)
    gateways = [
        _gateway(host, account, told.get(host, {}), (first, last)) for host, account in accounts.items()
    ]
    hubs = fleet.in_group("hub")
    of_hub = told.get(hubs[0], {}) if hubs else {}
    latency = section(of_hub, "latency", "the inventory has no Hub")
    report: dict[str, Any] = {
        "format": FORMAT,
        "environment": fleet.environment,
        "date": f"{date[:4]}-{date[4:6]}-{date[6:]}",
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made)),
        "whole": all(isinstance(one, str) or one.now_msc >= last for one in accounts.values()),
        "mode": _mode(fleet),
        "gateways": gateways,
        "latency": latency,
        "alerts": section(of_hub, "alerts", "the inventory has no Hub"),
        "deployments": section(of_hub, "deployments", "the inventory has no Hub"),
        "definitions": reckoning.DEFINITIONS,
        "anomaly_rules": ANOMALIES,
    }
    report["anomalies"] = anomalies(report)
    safe: dict[str, Any] = shown_tree(report)
    return safe


def section(told: Mapping[str, Any], name: str, without: str) -> dict[str, Any]:
    """A section of what a host told: `value`, or `no_data` with the reason."""
    of = told.get(name)
    if of is None:
        return {"no_data": told.get("error") or without}
    return {"no_data": of["error"]} if "error" in of else {"value": of["value"]}


def _ask_all(
    fleet: Fleet, first: int, last: int, now: float, accounts: Mapping[str, Account | str]
) -> dict[str, dict[str, Any]]:
    """Host → its sections, or `error`. The broker's day is looked for at the hosts by their own time."""
    known = [one for one in accounts.values() if isinstance(one, Account)]
    ahead = int(known[0].now_msc - now * 1000) if known else 0
    asked = asked_of(first, last, ahead, now)
    return told_by(fleet, dict.fromkeys([*fleet.in_group("gateway"), *fleet.in_group("hub")[:1]], asked))


def asked_of(first: int, last: int, ahead: int, now: float) -> dict[str, Any]:
    """The question to a host about [first, last) of broker time, which is so far ahead of UTC, in ms.

    :param now: Unix time, after which nothing can be known
    """
    begins, ends = first - ahead, last - ahead
    return {
        "from_msc": first,
        "to_msc": last,
        "from_utc_msc": begins,
        "to_utc_msc": ends,
        "until": min(now, ends / 1000),
        "from_iso": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begins / 1000)),
        "to_iso": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ends / 1000)),
    }


def told_by(fleet: Fleet, asked: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Host → its sections, or `error`. asked: host → what it is asked."""
    with ThreadPoolExecutor(max(1, len(asked))) as pool:
        return dict(zip(asked, pool.map(lambda host: _ask(fleet, host, asked[host]), asked), strict=True))


def _ask(fleet: Fleet, host: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    if host in fleet.in_group(WINDOWS):
        return {"error": "Windows hosts cannot be asked yet"}
    of = fleet.hosts[host]
    address = str(of["fleet_address"])
    shown = f"[{address}]" if ":" in address else address
    on_hub = host in fleet.in_group("hub")
    mine = {
        "gateway": host in fleet.in_group("gateway"),
        "prometheus": f"http://{shown}:{of['monitoring_prometheus_port']}" if on_hub else "",
    }
    try:
        return script.ask(of, on_host, json.dumps({**asked, **mine}), timeout_s=_TIMEOUT_S)
    except script.ScriptError as error:
        return {"error": str(error)}


def _mode(fleet: Fleet) -> list[dict[str, Any]]:
    """How each magic number trades, as the inventory has it now."""
    found = []
    for host in fleet.in_group("inf"):
        of = fleet.hosts[host]
        gateway = fleet.hosts.get(str(of.get("fleet_gateway")), {})
        limits = dict(of.get("fleet_limits") or {})
        found.append(
            {
                "host": host,
                "magic": of.get("fleet_magic_number"),
                "strategy": of.get("strategy_strategy"),
                "symbol": of.get("strategy_symbol"),
                "gateway": of.get("fleet_gateway"),
                "account_phase": gateway.get("gateway_account_phase"),
                "orders": "no limits, so none" if not limits else "dry run" if limits["dry_run"] else "sent",
                "limits": {name: value for name, value in limits.items() if name != "dry_run"},
            }
        )
    return found


def _gateway(
    host: str, account: Account | str, told: Mapping[str, Any], day: tuple[int, int]
) -> dict[str, Any]:
    orders = section(told, "submissions", "it was not asked")
    if "value" in orders:
        oldest = orders["value"]["oldest"]
        if not orders["value"]["counts"] and (oldest is None or oldest >= day[1]):
            orders = {"no_data": "the journal holds nothing of that day or before"}
        else:
            orders = {"value": orders["value"]["counts"]}
    return {
        "host": host,
        "money": _money(account, day),
        "orders": orders,
        "halts": section(told, "acts", "it was not asked"),
    }


def _money(account: Account | str, day: tuple[int, int]) -> dict[str, Any]:
    if isinstance(account, str):
        return {"no_data": account}
    if not account.deals:
        return {"no_data": f"the broker shows no deal of account {account.login}"}
    oldest = min(deal.time_msc for deal in account.deals)
    if oldest >= day[1]:
        begins = time.strftime("%Y-%m-%d", time.gmtime(oldest / 1000))
        return {"no_data": f"the first deal of account {account.login} is of {begins}"}
    made = reckoning.reckon(account.deals, *day)
    whole, said = (
        reckoning.cents(reckoning.balance(account.deals)),
        reckoning.cents(Decimal(repr(account.balance))),
    )
    money = {name: str(reckoning.cents(getattr(made, name))) for name in _AMOUNTS}
    return {
        "value": {
            "login": account.login,
            "currency": account.currency,
            **money,
            "deals": made.deals,
            "trades": len(made.trades),
            "wins": made.wins,
            "win_rate": made.win_rate,
            "profit_factor": made.profit_factor,
            "by_symbol": {name: str(reckoning.cents(value)) for name, value in made.by_symbol.items()},
            "by_hour": {str(hour): str(reckoning.cents(value)) for hour, value in made.by_hour.items()},
            "curve": [[at, str(reckoning.cents(value))] for at, value in made.curve],
            "books": {"deals_add_up_to": str(whole), "broker_says": str(said), "equal": whole == said},
        }
    }


_AMOUNTS = ("opening", "closing", "result", "deposits", "drawdown")


def anomalies(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """What stands out, by `ANOMALIES`; and that the books do not add up, which must never be. Pure."""
    found = []
    for gateway in report["gateways"]:
        host, counts = gateway["host"], gateway["orders"].get("value") or []
        by = {name: sum(one["count"] for one in counts if one["result"] == name) for name in _RESULTS}
        all_, bad = sum(one["count"] for one in counts), by["REJECTED"] + by["REFUSED"]
        sent = all_ - by["REFUSED"] - by["DRY_RUN"]
        if bad >= _REJECTED_LEAST and bad >= _REJECTED_SHARE * all_:
            found.append(
                {"rule": "rejects", "text": f"{host}: {bad} of {all_} orders were rejected or refused"}
            )
        if sent and not by["FILLED"] + by["PARTIAL"] + by["PLACED"]:
            found.append({"rule": "fills", "text": f"{host}: {sent} orders were sent, none was executed"})
        if by["UNRESOLVED"]:
            found.append(
                {"rule": "unresolved", "text": f"{host}: the fate of {by['UNRESOLVED']} orders is not known"}
            )
        money = gateway["money"].get("value")
        if money and not money["books"]["equal"]:
            books = money["books"]
            text = f"all deals add up to {books['deals_add_up_to']}, the broker says {books['broker_says']}"
            found.append({"rule": "books", "text": f"{host}: {text}"})
        if money and Decimal(money["result"]) < -_LOSS_SHARE * Decimal(money["opening"]):
            found.append({"rule": "loss", "text": f"{host}: {money['result']} {money['currency']}"})
    for host, of in (report["latency"].get("value") or {}).items():
        if of.get("p95", 0) > _SLOW_S:
            found.append({"rule": "latency", "text": f"{host}: P95 is {of['p95']:.2f} s"})
    return found


_RESULTS = ("FILLED", "PARTIAL", "PLACED", "REJECTED", "REFUSED", "DRY_RUN", "UNRESOLVED")
