"""What a symbol does not take, beyond its filling: refused with the field's name before it is sent. Pure."""

from mt5crs.broker.interface import TradedSymbol
from mt5crs.protocol.records import Tick
from mt5crs.protocol.requests import OrderTerms

from .refusal import Refusal

_EPSILON = 1e-9
_CLOSED_MODES = {
    "DISABLED": "is disabled for trading",
    "CLOSE_ONLY": "may only be closed: no new orders",
}


def check_taken(terms: OrderTerms, spec: TradedSymbol, tick: Tick) -> None:
    """Raise Refusal BAD_FIELD for what the symbol's modes do not offer, or what is too near to the market.

    Where there is no quote, distances are left to the broker.
    """
    if spec.mode in _CLOSED_MODES:
        raise _not_taken("symbol", f"{terms.symbol} {_CLOSED_MODES[spec.mode]}", "trade another symbol")
    if spec.mode != "FULL" and (terms.side == "BUY") != (spec.mode == "LONG_ONLY"):
        only = "bought" if spec.mode == "LONG_ONLY" else "sold"
        raise _not_taken("side", f"{terms.symbol} may only be {only}", "trade another symbol")
    if terms.type not in spec.kinds:
        offered = ", ".join(spec.kinds) or "none"
        raise _not_taken(
            "type", f"{terms.symbol} takes no {terms.type} orders (offered: {offered})", "send one of those"
        )
    if terms.type != "MARKET":
        if terms.expiration_msc and not spec.specified:
            raise _not_taken(
                "expiration_msc",
                f"orders of {terms.symbol} cannot end at a time of their own",
                "leave it out and cancel the order yourself",
            )
        if not terms.expiration_msc and not spec.gtc:
            raise _not_taken(
                "expiration_msc",
                f"orders of {terms.symbol} must end at a time",
                "send the time" if spec.specified else "this gateway has no kind of order for it",
            )
    for field, is_taken in (("sl", spec.sl), ("tp", spec.tp)):
        if getattr(terms, field) and not is_taken:
            raise _not_taken(field, f"{terms.symbol} takes no {field}", "send the order without it")
    _check_distances(terms, spec, tick)


def _check_distances(terms: OrderTerms, spec: TradedSymbol, tick: Tick) -> None:
    least = spec.stops_level * spec.point
    if not (least > 0 and tick.bid > 0 and tick.ask > 0):
        return
    buys = terms.side == "BUY"
    market = tick.bid if buys else tick.ask  # where a position of this side is closed
    if terms.type != "MARKET" and terms.price is not None:
        _require_apart("price", terms.price, tick.ask if buys else tick.bid, least, spec)
        market = terms.price
    for field in ("sl", "tp"):
        level = getattr(terms, field)
        if level:
            _require_apart(field, level, market, least, spec)


def _require_apart(field: str, level: float, market: float, least: float, spec: TradedSymbol) -> None:
    if not abs(level - market) >= least - _EPSILON:
        raise _not_taken(
            field,
            f"{field} {level:g} is nearer than {spec.stops_level} points to {market:g} (stops level of "
            f"{spec.symbol})",
            "keep the symbol's `stops_level` from the market",
        )


def _not_taken(field: str, message: str, remedy: str) -> Refusal:
    return Refusal("BAD_FIELD", field, message, remedy, final=True)
