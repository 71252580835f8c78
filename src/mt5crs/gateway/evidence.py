"""What the broker's books say about a submission whose reply was lost. Pure.

Nothing found is no verdict: an order that is found nowhere may still arrive.
"""

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from mt5crs.protocol.fields import Outcome
from mt5crs.protocol.records import Deal, Order
from mt5crs.protocol.requests import OrderCancel, PositionClose

from .journal import Entry
from .pending import Seen

_EPSILON = 1e-9
_STOPPED = frozenset({4, 5, 6})
"""Reasons of deals and orders that came of a stop loss, a take profit or a stop out."""


class Verdict(Struct, frozen=True, kw_only=True):
    """The fate of a submission, as the books show it."""

    outcome: Outcome
    order: int
    deals: list[int]
    position: int
    volume: float
    price: float
    message: str


def judge(
    entry: Entry, working: Sequence[Order], closed: Sequence[Order], deals: Sequence[Deal]
) -> Verdict | None:
    """The verdict, or None when the books do not decide (yet)."""
    if isinstance(entry.request, OrderCancel):
        return _judge_cancel(entry.request.order, working, closed)
    magic, comment = entry.request.magic, entry.comment_id
    order = next((o for o in (*closed, *working) if o.comment == comment and o.magic == magic), None)
    mine = [d for d in deals if (order is not None and d.order == order.ticket) or _marked(d, magic, comment)]
    if order is None:
        return None if not mine else _from_deals_alone(entry, mine)
    volume = sum(d.volume for d in mine)
    if volume < order.volume_initial - order.volume_current - _EPSILON:
        return None  # the order says more was filled than the deals show: the history is not complete yet
    ended = any(o.ticket == order.ticket for o in closed)
    outcome = _outcome_of(order, volume, ended=ended)
    return None if outcome is None else _verdict(outcome, order.ticket, mine, f"order is {order.state}")


def verdict_of(entry: Entry, seen: Seen | None) -> Verdict | None:
    """The same, of one reading of the books and history; None also when they could not be read."""
    return None if seen is None else judge(entry, seen.books.orders, seen.closed, seen.deals)


def _marked(deal: Deal, magic: int, comment: str) -> bool:
    return deal.comment == comment and deal.magic == magic


def _outcome_of(order: Order, filled: float, *, ended: bool) -> Outcome | None:
    if ended:
        if filled >= order.volume_initial - _EPSILON:
            return "FILLED"
        if filled > _EPSILON:
            return "PARTIAL"
        return "REJECTED" if order.state == "REJECTED" else "CANCELED"
    if filled > _EPSILON:
        return "PARTIAL"
    if order.type in ("BUY", "SELL") or order.state in ("STARTED", "REQUEST_ADD"):
        return None  # a market order without a fill is still on its way
    return "PLACED"


def _from_deals_alone(entry: Entry, mine: list[Deal]) -> Verdict | None:
    wanted = getattr(entry.request, "volume", None)
    filled = sum(d.volume for d in mine)
    if wanted is None or filled < wanted - _EPSILON:
        return None
    return _verdict("FILLED", mine[0].order, mine, "deals found")


def _verdict(outcome: Outcome, ticket: int, mine: list[Deal], message: str) -> Verdict:
    volume = round(sum(d.volume for d in mine), 8)
    return Verdict(
        outcome=outcome,
        order=ticket,
        deals=[d.ticket for d in mine],
        position=mine[0].position_id if mine else 0,
        volume=volume,
        price=_finite(round(sum(d.price * d.volume for d in mine) / volume, 8)) if volume else 0.0,
        message=message,
    )


def resembling(entry: Entry, orders: Iterable[Order], deals: Iterable[Deal]) -> list[Order | Deal]:
    """Orders and deals that could be this submission under another comment: the broker may have rewritten it.

    Same magic number, symbol and side, or the position that was to be closed; what a stop closed is not.
    """
    request = entry.request
    if isinstance(request, OrderCancel):
        return []

    def like(record: Order | Deal) -> bool:
        if record.magic != request.magic or record.reason in _STOPPED:
            return False
        if isinstance(request, PositionClose):
            return record.position_id == request.position and getattr(record, "entry", "OUT") != "IN"
        side = "BUY" if record.type.startswith("BUY") else "SELL"
        return (record.symbol, side) == (request.symbol, request.side)

    return [*filter(like, orders), *filter(like, deals)]


def _finite(price: float) -> float:
    """The price, or 0 for what the journal cannot hold."""
    return price if math.isfinite(price) else 0.0


def _judge_cancel(ticket: int, working: Sequence[Order], closed: Sequence[Order]) -> Verdict | None:
    if any(o.ticket == ticket for o in working):
        return None
    order = next((o for o in closed if o.ticket == ticket), None)
    if order is None:
        return None
    outcome: Outcome = "CANCELED" if order.state == "CANCELED" else "REJECTED"
    return _verdict(outcome, ticket, [], f"order is {order.state}")
