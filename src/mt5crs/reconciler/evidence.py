"""Is a snapshot fit to be believed? Pure checks before any comparison."""

from __future__ import annotations

import math
from collections import Counter

from mt5crs.protocol.digest import state_digest
from mt5crs.protocol.records import Deal, Order, Position
from mt5crs.protocol.replies import Snapshot


def flaws(snapshot: Snapshot, magic: int, expected_login: int, *, whole_account: bool = True) -> list[str]:
    """Everything in a snapshot that contradicts itself or what we expect; empty when it may be compared.

    whole_account: whether that was asked for.
    """
    found: list[str] = []
    identity = snapshot.identity
    if identity.login != expected_login:
        found.append(
            f"the gateway trades account {identity.login}, expected {expected_login}; "
            "log the terminal in to the right account or correct EXPECTED_ACCOUNT_LOGIN"
        )
    if not identity.connected:
        found.append("the terminal is not connected to the broker; restore its connection")
    if not identity.trade_allowed:
        found.append("trading is not allowed in the terminal; switch auto-trading on")
    if snapshot.magic != magic:
        found.append(f"the reply is for magic {snapshot.magic}, asked was {magic}")
    if whole_account and not snapshot.whole_account:
        found.append("the reply covers one magic number only, asked was the whole account")
    found += _repeated("position identifier", [p.identifier for p in snapshot.positions])
    found += _repeated("position ticket", [p.ticket for p in snapshot.positions])
    found += _repeated("order ticket", [o.ticket for o in snapshot.orders])
    found += _repeated("deal ticket", [d.ticket for d in snapshot.deals])
    if identity.margin_mode != "HEDGING":
        found += _repeated("netting position in symbol", [p.symbol for p in snapshot.positions])
    # only ours: what other programs have need not make sense to us
    for position in snapshot.positions:
        if position.magic == magic:
            found += _unsound(f"position {position.identifier}", position, ("price_open", "sl", "tp"))
            if not 0 < position.volume < math.inf:
                found.append(f"position {position.identifier} has the volume {position.volume}")
    for order in snapshot.orders:
        if order.magic == magic:
            found += _unsound(f"order {order.ticket}", order, ("price_open", "sl", "tp"))
            if not 0 <= order.volume_current <= order.volume_initial < math.inf or not order.volume_initial:
                found.append(
                    f"order {order.ticket} has {order.volume_current} of {order.volume_initial} left"
                )
    for deal in snapshot.deals:
        if deal.magic == magic:
            found += _unsound(f"deal {deal.ticket}", deal, ("volume", "price"))
    if snapshot.digest != state_digest(snapshot.positions, snapshot.orders, magic):
        found.append("the digest in the reply does not match its positions and orders")
    return found


def _unsound(what: str, record: Position | Order | Deal, names: tuple[str, ...]) -> list[str]:
    values = {name: getattr(record, name) for name in names}
    return [f"{what} has the {name} {value}" for name, value in values.items() if not math.isfinite(value)]


def _repeated(what: str, keys: list[int] | list[str]) -> list[str]:
    counts: Counter[int | str] = Counter(keys)
    return [f"{what} {key} appears {count} times" for key, count in counts.items() if count > 1]
