"""What the broker is asked for, from what a client asked for. Pure."""

from mt5crs.broker.interface import Books, TradeRequest
from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import OrderType
from mt5crs.protocol.records import Position
from mt5crs.settings.gateway import Limits

from . import risk
from .order_refusals import no_position, not_yours
from .refusal import Refusal


def trade_request(terms: ask.OrderTerms, comment: str, limits: Limits) -> TradeRequest:
    """The broker's form of an order. Pure."""
    market = terms.type == "MARKET"
    kind: OrderType = terms.side if market else f"{terms.side}_{terms.type}"  # type: ignore[assignment]
    return TradeRequest(
        action="DEAL" if market else "PENDING",
        magic=terms.magic,
        comment=comment,
        symbol=terms.symbol,
        type=kind,
        volume=terms.volume,
        price=terms.price or 0.0,
        sl=terms.sl or 0.0,
        tp=terms.tp or 0.0,
        deviation=risk.slippage_points(terms.max_slippage_points, limits),
        filling=terms.filling,
        expiration_msc=terms.expiration_msc or 0,
    )


def cancel_request(request: ask.OrderCancel, books: Books) -> TradeRequest:
    """The broker's form of a cancellation. Raises Refusal: not there, or not its own."""
    order = next((o for o in books.orders if o.ticket == request.order), None)
    if order is None:
        raise Refusal(
            "UNKNOWN_ORDER",
            "order",
            f"there is no working order {request.order}",
            "take a snapshot: it was filled, cancelled or has expired",
            final=True,
        )
    if order.magic != request.magic:
        raise not_yours("order", request.order, order.magic, request.magic)
    return TradeRequest(action="REMOVE", magic=request.magic, comment="", filling=None, order=order.ticket)


def own_position(request: ask.PositionClose, books: Books) -> Position:
    """The position to close, as the books list it. Raises Refusal: not there, or not its own."""
    # a ticket is as good as the identifier: it is a later ticket of the same position, never another's number
    position = next((p for p in books.positions if request.position in (p.identifier, p.ticket)), None)
    if position is None:
        raise no_position(request.position)
    if position.magic != request.magic:
        raise not_yours("position", request.position, position.magic, request.magic)
    return position
