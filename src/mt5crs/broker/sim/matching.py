"""How fills change positions, on a hedging and on a netting account. Pure: books in, changes out."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from mt5crs.protocol.fields import DealEntry, Side
from mt5crs.protocol.records import Deal, Order, Position, Tick

from .symbols import Contract

COMMISSION_PER_LOT = 3.0
"""US dollars per lot and deal."""

REASON_CLIENT, REASON_EXPERT, REASON_SL, REASON_TP = 0, 3, 4, 5
EPSILON = 1e-9


class Fill(Struct, frozen=True, kw_only=True):
    """A piece of an order that found its counterpart. `position` 0: whatever the account's mode says."""

    order: int
    deal: int
    symbol: str
    side: Side
    volume: float
    price: float
    magic: int
    position: int
    sl: float
    tp: float
    reason: int
    comment: str
    time_msc: int


class Outcome(Struct, frozen=True, kw_only=True):
    """The position after the fill (None: closed), its identifier, and the deal."""

    identifier: int
    position: Position | None
    deal: Deal


def lots(volume: float) -> float:
    """A volume without floating-point dust."""
    return round(volume, 8)


def profit(contract: Contract, side: Side, volume: float, price_open: float, price_close: float) -> float:
    """What a position earns between two prices, in US dollars."""
    move = price_close - price_open if side == "BUY" else price_open - price_close
    return round(contract.usd(move * volume * contract.contract_size, price_close), 2)


def apply_fill(positions: Iterable[Position], fill: Fill, contract: Contract, *, netting: bool) -> Outcome:
    """What a fill does to the books."""
    target = _target(positions, fill, netting=netting)
    if target is None:
        return _open(fill)
    if target.type == fill.side:
        return _add(target, fill)
    if fill.volume > target.volume + EPSILON:
        return _reverse(target, fill, contract)
    return _reduce(target, fill, contract)


def _target(positions: Iterable[Position], fill: Fill, *, netting: bool) -> Position | None:
    if netting:
        return next((p for p in positions if p.symbol == fill.symbol), None)
    wanted = fill.position or fill.order  # a pending order filled in pieces adds to the position it opened
    return next((p for p in positions if p.ticket == wanted), None)


def _open(fill: Fill) -> Outcome:
    position = Position(
        identifier=fill.order,
        ticket=fill.order,
        symbol=fill.symbol,
        type=fill.side,
        magic=fill.magic,
        volume=lots(fill.volume),
        price_open=fill.price,
        price_current=fill.price,
        sl=fill.sl,
        tp=fill.tp,
        profit=0.0,
        swap=0.0,
        time_msc=fill.time_msc,
        time_update_msc=fill.time_msc,
        reason=fill.reason,
        comment=fill.comment,
    )
    return Outcome(identifier=fill.order, position=position, deal=_deal(fill, fill.order, "IN", 0.0))


def _add(target: Position, fill: Fill) -> Outcome:
    volume = lots(target.volume + fill.volume)
    price = (target.price_open * target.volume + fill.price * fill.volume) / volume
    position = msgspec.structs.replace(
        target,
        volume=volume,
        price_open=round(price, 8),
        sl=fill.sl or target.sl,
        tp=fill.tp or target.tp,
        time_update_msc=fill.time_msc,
    )
    return Outcome(
        identifier=target.identifier, position=position, deal=_deal(fill, target.identifier, "IN", 0.0)
    )


def _reduce(target: Position, fill: Fill, contract: Contract) -> Outcome:
    earned = profit(contract, target.type, fill.volume, target.price_open, fill.price)
    left = lots(target.volume - fill.volume)
    position = (
        msgspec.structs.replace(target, volume=left, time_update_msc=fill.time_msc)
        if left > EPSILON
        else None
    )
    return Outcome(
        identifier=target.identifier, position=position, deal=_deal(fill, target.identifier, "OUT", earned)
    )


def _reverse(target: Position, fill: Fill, contract: Contract) -> Outcome:
    earned = profit(contract, target.type, target.volume, target.price_open, fill.price)
    position = msgspec.structs.replace(
        target,
        ticket=fill.order,  # the ticket changes on a reversal, the identifier stays
        type=fill.side,
        volume=lots(fill.volume - target.volume),
        price_open=fill.price,
        sl=fill.sl,
        tp=fill.tp,
        time_update_msc=fill.time_msc,
    )
    return Outcome(
        identifier=target.identifier, position=position, deal=_deal(fill, target.identifier, "INOUT", earned)
    )


def _deal(fill: Fill, identifier: int, entry: DealEntry, earned: float) -> Deal:
    return Deal(
        ticket=fill.deal,
        order=fill.order,
        position_id=identifier,
        symbol=fill.symbol,
        type=fill.side,
        entry=entry,
        magic=fill.magic,
        volume=lots(fill.volume),
        price=fill.price,
        commission=-round(COMMISSION_PER_LOT * fill.volume, 2),
        fee=0.0,
        swap=0.0,
        profit=earned,
        time_msc=fill.time_msc,
        reason=fill.reason,
        comment=fill.comment,
    )


def triggered(order: Order, tick: Tick) -> float | None:
    """The price at which a working order fills at this quote, or None."""
    price = order.price_open
    if order.type == "BUY_LIMIT":
        return min(price, tick.ask) if tick.ask <= price else None
    if order.type == "SELL_LIMIT":
        return max(price, tick.bid) if tick.bid >= price else None
    if order.type == "BUY_STOP":
        return tick.ask if tick.ask >= price else None
    if order.type == "SELL_STOP":
        return tick.bid if tick.bid <= price else None
    return tick.ask if order.type == "BUY" else tick.bid  # the rest of a market order


def side_of(order_type: str) -> Side:
    """BUY or SELL, whatever the kind of order."""
    return "BUY" if order_type.startswith("BUY") else "SELL"


def stop_hit(position: Position, tick: Tick) -> tuple[float, int] | None:
    """Closing price and reason when the quote reaches stop loss or take profit."""
    if position.type == "BUY":
        if position.sl and tick.bid <= position.sl:
            return tick.bid, REASON_SL
        if position.tp and tick.bid >= position.tp:
            return tick.bid, REASON_TP
    else:
        if position.sl and tick.ask >= position.sl:
            return tick.ask, REASON_SL
        if position.tp and tick.ask <= position.tp:
            return tick.ask, REASON_TP
    return None
