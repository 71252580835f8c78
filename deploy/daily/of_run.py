"""What a magic number did between two moments: money, orders, halts, alerts, with the readers of a day."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.daily import reckoning
from deploy.daily.asking import Account, asked_of, section, told_by
from deploy.fleet.inventory import Fleet
from mt5crs.protocol.records import Deal

_SETTLED_MS = 1000
"""What the broker had in its hands at the end comes a moment later, and so does the record of the end."""


def document(
    fleet: Fleet, magic: int, began: float | str, ended: float, accounts: Mapping[str, Account | str]
) -> dict[str, Any]:
    """`money`, `orders`, `acts` by gateway, and `alerts`; each has a `value` or says why there is `no_data`.

    :param began: Unix time, or why it is not known: then nothing of the run can be told
    :param ended: Unix time
    :param accounts: by gateway; a text says why one is not known
    """
    if isinstance(began, str):
        nothing = {"no_data": began}
        return {
            **{name: dict.fromkeys(accounts, nothing) for name in ("money", "orders", "acts")},
            "alerts": nothing,
        }
    first, last = int(began * 1000), int(ended * 1000) + _SETTLED_MS
    now = time.time()
    ahead = {
        host: 0 if isinstance(account, str) else int(account.now_msc - now * 1000)
        for host, account in accounts.items()
    }
    hubs = fleet.in_group("hub")[:1]
    asked = {host: asked_of(first + ahead[host], last + ahead[host], ahead[host], now) for host in accounts}
    asked |= {host: asked_of(first, last, 0, now) for host in hubs if host not in asked}
    told = told_by(fleet, asked)
    return {
        "money": {
            host: money(account, magic, first + ahead[host], last + ahead[host])
            for host, account in accounts.items()
        },
        "orders": {host: _orders(told.get(host, {}), magic) for host in accounts},
        "acts": {host: _acts(told.get(host, {}), magic) for host in accounts},
        "alerts": section(told.get(hubs[0], {}) if hubs else {}, "alerts", "the inventory has no Hub"),
    }


def money(account: Account | str, magic: int, first_msc: int, last_msc: int) -> dict[str, Any]:
    """Trades and result of a magic number in [first, last] of broker time. Pure."""
    if isinstance(account, str):
        return {"no_data": account}
    if not account.deals:
        return {"no_data": f"the broker shows no deal of account {account.login}"}
    of = reckoning.reckon(of_magic(account.deals, magic), first_msc, last_msc + 1)
    return {
        "value": {
            "login": account.login,
            "currency": account.currency,
            "deals": of.deals,
            "trades": len(of.trades),
            "wins": of.wins,
            "result": str(reckoning.cents(of.result)),
            "profit_factor": of.profit_factor,
            "by_symbol": {name: str(reckoning.cents(value)) for name, value in of.by_symbol.items()},
        }
    }


def of_magic(deals: Sequence[Deal], magic: int) -> list[Deal]:
    """Deals of the positions that a magic number has opened, whoever closed them. Pure."""
    opened = {deal.position_id for deal in deals if deal.magic == magic and deal.position_id}
    return [deal for deal in deals if deal.position_id in opened]


def _orders(told: Mapping[str, Any], magic: int) -> dict[str, Any]:
    found = section(told, "submissions", "it was not asked")
    if "no_data" in found:
        return found
    return {"value": [one for one in found["value"]["counts"] if one["magic"] == magic]}


def _acts(told: Mapping[str, Any], magic: int) -> dict[str, Any]:
    found = section(told, "acts", "it was not asked")
    if "no_data" in found:
        return found
    return {"value": [one for one in found["value"] if one["magic"] in (0, magic)]}
