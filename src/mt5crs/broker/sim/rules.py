"""Would the trade server accept a request? Pure: returns MetaTrader 5's return code, 0 for yes."""

import math

from mt5crs.broker.interface import TradedSymbol, TradeRequest
from mt5crs.protocol.records import Order, Position, Tick

from .matching import EPSILON, side_of
from .symbols import Contract


def refusal(
    request: TradeRequest,
    contract: Contract | None,
    tick: Tick | None,
    positions: list[Position],
    orders: list[Order],
    margin_free: float,
    leverage: int,
    now_msc: int,
) -> int:
    """Return code of the first rule a request breaks."""
    if request.action == "REMOVE":
        return 0 if any(order.ticket == request.order for order in orders) else 10013
    if contract is None or tick is None or len(request.comment) > 31:
        return 10013
    return (
        _volume(request, contract)
        or _filling(request, contract)
        or (
            _deal(request, tick, contract, positions)
            if request.action == "DEAL"
            else _pending(request, tick, now_msc)
        )
        or _stops(request, tick)
        or _money(request, contract, tick, margin_free, leverage)
    )


def not_taken(
    request: TradeRequest, spec: TradedSymbol, tick: Tick, order: Order | None, held: Position | None
) -> int:
    """Return code of the first of its symbol's rules that a request breaks; `order` is cancelled, `held` is
    closed by it.
    """
    freeze = spec.freeze_level * spec.point
    if request.action == "REMOVE":
        return 10029 if order and _is_near(order.price_open, tick, freeze) else 0
    if spec.mode == "DISABLED":
        return 10017
    if not (
        request.filling and spec.offers(request.filling, "MARKET" if request.action == "DEAL" else "LIMIT")
    ):
        return 10030
    if held is not None:
        return 10029 if any(_is_near(level, tick, freeze) for level in (held.sl, held.tp) if level) else 0
    side = side_of(request.type)
    if spec.mode == "CLOSE_ONLY":
        return 10044
    if spec.mode in ("LONG_ONLY", "SHORT_ONLY") and (side == "BUY") != (spec.mode == "LONG_ONLY"):
        return 10042 if spec.mode == "LONG_ONLY" else 10043
    kind = "MARKET" if request.action == "DEAL" else request.type.removeprefix(f"{side}_")
    if kind not in spec.kinds:
        return 10035
    if kind != "MARKET" and not (spec.specified if request.expiration_msc else spec.gtc):
        return 10022
    if (request.sl and not spec.sl) or (request.tp and not spec.tp):
        return 10016
    level = spec.stops_level * spec.point - 1e-9
    market = tick.bid if side == "BUY" else tick.ask
    if kind != "MARKET":
        if abs(request.price - (tick.ask if side == "BUY" else tick.bid)) < level:
            return 10015
        market = request.price
    return 10016 if any(abs(each - market) < level for each in (request.sl, request.tp) if each) else 0


def _is_near(price: float, tick: Tick, distance: float) -> bool:
    return bool(distance) and min(abs(price - tick.bid), abs(price - tick.ask)) < distance


def margin_of(contract: Contract, volume: float, price: float, leverage: int) -> float:
    """Margin of a volume in US dollars."""
    value = volume * contract.contract_size
    return value / leverage if contract.profit_currency != "USD" else value * price / leverage


def _volume(request: TradeRequest, contract: Contract) -> int:
    steps = request.volume / contract.volume_step
    whole = math.isclose(steps, round(steps), abs_tol=1e-6)
    if not whole or not contract.volume_min - EPSILON <= request.volume <= contract.volume_max + EPSILON:
        return 10014
    return 0


def _filling(request: TradeRequest, contract: Contract) -> int:
    offered = request.filling in contract.fillings
    return 0 if offered or (request.action == "PENDING" and request.filling == "RETURN") else 10030


def _deal(request: TradeRequest, tick: Tick, contract: Contract, positions: list[Position]) -> int:
    if request.type not in ("BUY", "SELL"):
        return 10013
    if request.position:
        target = next((p for p in positions if p.ticket == request.position), None)
        if target is None:
            return 10036
        if target.type == request.type or target.symbol != request.symbol:
            return 10013
        if request.volume > target.volume + EPSILON:
            return 10038
    price = tick.ask if request.type == "BUY" else tick.bid
    if request.price and request.deviation is not None:
        distance = abs(price - request.price) / contract.point
        if distance > request.deviation + 1e-6:
            return 10004
    return 0


def _pending(request: TradeRequest, tick: Tick, now_msc: int) -> int:
    price = request.price
    right_side = {
        "BUY_LIMIT": 0 < price < tick.ask,
        "SELL_LIMIT": price > tick.bid,
        "BUY_STOP": price > tick.ask,
        "SELL_STOP": 0 < price < tick.bid,
    }.get(request.type)
    if right_side is None:
        return 10035
    if not right_side:
        return 10015
    if request.expiration_msc and request.expiration_msc <= now_msc:
        return 10022
    return 0


def _stops(request: TradeRequest, tick: Tick) -> int:
    buying = side_of(request.type) == "BUY"
    price = request.price if request.action == "PENDING" else (tick.bid if buying else tick.ask)
    low, high = (request.sl, request.tp) if buying else (request.tp, request.sl)
    return 10016 if (low and low >= price) or (high and high <= price) else 0


def _money(request: TradeRequest, contract: Contract, tick: Tick, margin_free: float, leverage: int) -> int:
    if request.position:
        return 0
    price = request.price or (tick.ask if side_of(request.type) == "BUY" else tick.bid)
    return 10019 if margin_of(contract, request.volume, price, leverage) > margin_free else 0
