"""Broker records for tests of the pure functions."""

from __future__ import annotations

from typing import Any

from mt5crs.protocol.digest import state_digest
from mt5crs.protocol.records import Account, Deal, Identity, Order, Position, SymbolSpec
from mt5crs.protocol.replies import Snapshot
from mt5crs.reconciler.model import Evidence

MAGIC = 202401
LOGIN = 90_000_001
NOW = 1_800_000_000_000


def position(identifier: int, volume: float, **changes: Any) -> Position:
    """A position; a negative volume is a sell."""
    values: dict[str, Any] = {
        "identifier": identifier,
        "ticket": identifier,
        "symbol": "EURUSD",
        "type": "BUY" if volume > 0 else "SELL",
        "magic": MAGIC,
        "volume": abs(volume),
        "price_open": 1.1,
        "price_current": 1.1,
        "sl": 0.0,
        "tp": 0.0,
        "profit": 0.0,
        "swap": 0.0,
        "time_msc": NOW - 1000,
        "time_update_msc": NOW - 1000,
        "reason": 0,
        "comment": "",
    }
    return Position(**(values | changes))


def deal(ticket: int, position_id: int, volume: float, **changes: Any) -> Deal:
    """A deal; a negative volume is a sell."""
    values: dict[str, Any] = {
        "ticket": ticket,
        "order": ticket + 100_000,
        "position_id": position_id,
        "symbol": "EURUSD",
        "type": "BUY" if volume > 0 else "SELL",
        "entry": "IN",
        "magic": MAGIC,
        "volume": abs(volume),
        "price": 1.1,
        "commission": 0.0,
        "fee": 0.0,
        "swap": 0.0,
        "profit": 0.0,
        "time_msc": NOW,
        "reason": 0,
        "comment": "",
    }
    return Deal(**(values | changes))


def order(ticket: int, initial: float, current: float | None = None, **changes: Any) -> Order:
    """A working limit order."""
    values: dict[str, Any] = {
        "ticket": ticket,
        "symbol": "EURUSD",
        "type": "BUY_LIMIT",
        "state": "PLACED",
        "magic": MAGIC,
        "position_id": 0,
        "volume_initial": initial,
        "volume_current": initial if current is None else current,
        "price_open": 1.0,
        "sl": 0.0,
        "tp": 0.0,
        "time_setup_msc": NOW - 5000,
        "time_done_msc": 0,
        "expiration_msc": 0,
        "reason": 0,
        "comment": "",
    }
    return Order(**(values | changes))


def evidence(
    positions: list[Position] | None = None,
    orders: list[Order] | None = None,
    deals: list[Deal] | None = None,
    closed: list[Order] | None = None,
    external: list[Position] | None = None,
    unresolved: tuple[str, ...] = (),
    time_msc: int = NOW,
) -> Evidence:
    """Evidence of what the broker shows."""
    return Evidence(
        login=LOGIN,
        magic=MAGIC,
        time_msc=time_msc,
        positions=tuple(positions or ()),
        orders=tuple(orders or ()),
        deals=tuple(deals or ()),
        closed_orders=tuple(closed or ()),
        external=tuple(external or ()),
        unresolved=unresolved,
    )


def identity(**changes: Any) -> Identity:
    """A sound identity."""
    values: dict[str, Any] = {
        "login": LOGIN,
        "server": "Sim-Demo",
        "trade_mode": "DEMO",
        "margin_mode": "HEDGING",
        "currency": "USD",
        "connected": True,
        "trade_allowed": True,
    }
    return Identity(**(values | changes))


def account() -> Account:
    """Some money."""
    return Account(
        balance=10_000.0,
        equity=10_000.0,
        profit=0.0,
        margin=0.0,
        margin_free=10_000.0,
        margin_level=0.0,
        leverage=100,
        currency="USD",
    )


def snapshot(request_id: str = "r", **changes: Any) -> Snapshot:
    """A sound SYNC_ALL answer, with its digest computed unless given."""
    values: dict[str, Any] = {
        "v": 1,
        "id": request_id,
        "magic": MAGIC,
        "whole_account": True,
        "stream": "s1",
        "seqs": {},
        "time_msc": NOW,
        "identity": identity(),
        "account": account(),
        "positions": [],
        "orders": [],
        "deals": [],
        "closed_orders": [],
        "history_complete": True,
        "unresolved": [],
        "halts": [],
    }
    values |= changes
    values.setdefault("digest", state_digest(values["positions"], values["orders"], values["magic"]))
    return Snapshot(**values)


def symbol_spec(symbol: str) -> SymbolSpec:
    """A contract specification."""
    return SymbolSpec(
        symbol=symbol,
        description="",
        digits=5,
        point=0.00001,
        contract_size=100_000.0,
        volume_min=0.01,
        volume_max=100.0,
        volume_step=0.01,
        stops_level=0,
        tick_size=0.00001,
        tick_value=1.0,
        currency_profit="USD",
        margin_initial=0.0,
        trade_allowed=True,
        fillings=["IOC"],
        sessions=None,
    )
