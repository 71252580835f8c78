"""The limits of a magic number. Pure: facts in, refusal or nothing out.

Every figure is compared with its limit in one function, `require_within`, which refuses what cannot be
computed.
"""

import math
from collections.abc import Callable, Iterable

from msgspec import Struct

from mt5crs.protocol.records import Order, Position, SymbolSpec, Tick
from mt5crs.protocol.requests import OrderTerms
from mt5crs.settings.gateway import Limits

from .refusal import Refusal

_EPSILON = 1e-9
CLOSING_ONLY = Limits(dry_run=False, symbols=[], max_order_volume=1e6, max_position_volume=1e6)
"""For an operator who closes what a magic number without limits has left behind."""


class Facts(Struct, frozen=True, kw_only=True):
    """What the decision needs to know. `positions` and `orders` are those of the magic number."""

    spec: SymbolSpec
    tick: Tick
    positions: list[Position]
    orders: list[Order]
    netting: bool
    daily_profit: float
    failures: int
    value_per_lot: Callable[[str], float]
    """Account currency per lot of a symbol. Raises Refusal LIMIT when it cannot be computed."""


def limits_of(limits: dict[int, Limits], magic: int) -> Limits:
    """Limits of a magic number. Raises Refusal LIMIT if there are none: what is not allowed is forbidden."""
    found = limits.get(magic)
    if found is None:
        raise Refusal(
            "LIMIT",
            "magic",
            f"magic number {magic} has no limits, so it may not trade",
            "add its limits to the clients file",
            final=True,
        )
    return found


def require_within(
    field: str, figure: float, bound: float, what: str, remedy: str, *, slack: float = _EPSILON
) -> None:
    """Raise Refusal LIMIT unless the figure is a number and at most the bound.

    `what` says what the figure is. Written so that what is no number is refused: no comparison with it holds.
    """
    if figure <= bound + slack:
        return
    if math.isfinite(figure) and math.isfinite(bound):
        raise _limit(field, f"{what} is {figure:.8g}, the limit is {bound:.8g}", remedy)
    raise cannot_compute(field, f"{what} is {figure}")


def cannot_compute(field: str, reason: str) -> Refusal:
    """The refusal for a limit that cannot be checked now; the same order may be allowed a moment later."""
    return Refusal(
        "LIMIT",
        field,
        f"{field} cannot be checked: {reason}",
        "wait until the terminal shows it, or take the limit away if it cannot",
        retry_ms=500,
    )


def worth_of_lot(
    symbol: str, spec: SymbolSpec | None, tick: Tick | None, now_msc: int, quote_life_ms: float
) -> float:
    """Account currency per lot. Raises Refusal LIMIT when the terminal does not show what it takes, or its
    quote is older than `quote_life_ms`: the market is closed, or hardly traded. `now_msc`: the broker's time.
    """
    if spec is None or tick is None:
        raise cannot_compute("value", f"the broker has no symbol {symbol} any more")
    for name, figure in (("ask", tick.ask), ("tick_size", spec.tick_size), ("tick_value", spec.tick_value)):
        if not 0 < abs(figure) < math.inf:
            raise cannot_compute("value", f"{name} of {symbol} is {figure}")
    age_ms = now_msc - tick.time_msc
    if not age_ms <= quote_life_ms:
        raise cannot_compute(
            "value",
            f"{symbol} has had no new quote for {age_ms / 1000:.0f} s, of which {quote_life_ms / 1000:.0f} s "
            "are taken (QUOTE_LIFE_S)",
        )
    return abs(tick.ask / spec.tick_size * spec.tick_value)


def check_breaker(limits: Limits, failures: int) -> None:
    """Raise Refusal while the circuit breaker is open."""
    if limits.max_consecutive_failures is not None and failures >= limits.max_consecutive_failures:
        raise _limit(
            "max_consecutive_failures",
            f"{failures} submissions in a row failed; the circuit breaker is open",
            "find the cause, then close it with `mt5crs resume --magic`",
        )


def check_unmixed(terms: OrderTerms, positions: Iterable[Position], orders: Iterable[Order]) -> None:
    """Raise Refusal LIMIT if the order would be merged with what another magic number has.

    For netting accounts; `positions` and `orders` are the whole account's. A symbol's one position belongs to
    whoever opened it, so a second magic number would change the first one's and escape its own limits.
    """
    there = [(p.symbol, p.magic) for p in positions] + [(o.symbol, o.magic) for o in orders]
    others = sorted(magic for symbol, magic in there if symbol == terms.symbol and magic != terms.magic)
    if others:
        raise _limit(
            "symbol",
            f"magic {others[0]} has {terms.symbol}, and a netting account merges all that a symbol has",
            "trade another symbol, wait until that one is closed, or use a hedging account",
        )


def check_order(terms: OrderTerms, limits: Limits, facts: Facts) -> None:
    """Raise Refusal (LIMIT, the field names the limit) if the order would break a limit."""
    if terms.symbol not in limits.symbols:
        raise _limit("symbols", f"{terms.symbol} is not among {limits.symbols}", "trade an allowed symbol")
    require_within(
        "max_order_volume",
        terms.volume,
        limits.max_order_volume,
        "the order's volume in lots",
        "send a smaller order",
    )
    if limits.max_order_value is not None:
        require_within(
            "max_order_value",
            terms.volume * _value_per_lot("max_order_value", terms.symbol, facts),
            limits.max_order_value,
            "the order's value",
            "send a smaller order",
        )
    _check_exposure(terms, limits, facts)
    _check_slippage(terms, limits, facts)
    check_breaker(limits, facts.failures)
    if limits.max_daily_loss is not None:
        require_within(
            "max_daily_loss",
            -facts.daily_profit,
            math.nextafter(limits.max_daily_loss, 0.0),  # at the limit is too much already
            "the day's loss",
            "wait for the broker's next day; positions can still be closed",
            slack=0.0,
        )


def _check_exposure(terms: OrderTerms, limits: Limits, facts: Facts) -> None:
    after = exposure(facts.positions, facts.orders, terms, netting=facts.netting)
    require_within(
        "max_position_volume",
        sum(after.values()),
        limits.max_position_volume,
        "what could be open, in lots,",
        "close positions or cancel orders first",
    )
    if limits.max_position_value is not None:
        require_within(
            "max_position_value",
            sum(lots * _value_per_lot("max_position_value", symbol, facts) for symbol, lots in after.items()),
            limits.max_position_value,
            "the value of what could be open",
            "close positions or cancel orders first",
        )


def _value_per_lot(field: str, symbol: str, facts: Facts) -> float:
    try:
        return facts.value_per_lot(symbol)
    except Refusal as refusal:
        raise cannot_compute(field, refusal.message.removeprefix("value cannot be checked: ")) from refusal


def exposure(
    positions: Iterable[Position], orders: Iterable[Order], terms: OrderTerms | None = None, *, netting: bool
) -> dict[str, float]:
    """Largest volume per symbol that can be open once all working orders, and a new one, are filled, in lots.

    Hedging: longs and shorts add up. Netting: the larger of the two directions, each in its worst order of
    fills.
    """
    buys: dict[str, float] = {}
    sells: dict[str, float] = {}
    held: dict[str, float] = {}
    for position in positions:
        signed = position.volume if position.type == "BUY" else -position.volume
        held[position.symbol] = held.get(position.symbol, 0.0) + (signed if netting else position.volume)
    for order in orders:
        side = buys if order.type.startswith("BUY") else sells
        side[order.symbol] = side.get(order.symbol, 0.0) + order.volume_current
    if terms is not None:
        side = buys if terms.side == "BUY" else sells
        side[terms.symbol] = side.get(terms.symbol, 0.0) + terms.volume
    symbols = {*held, *buys, *sells}
    if not netting:
        return {s: held.get(s, 0.0) + buys.get(s, 0.0) + sells.get(s, 0.0) for s in symbols}
    return {
        s: max(abs(held.get(s, 0.0) + buys.get(s, 0.0)), abs(held.get(s, 0.0) - sells.get(s, 0.0)))
        for s in symbols
    }


def _check_slippage(terms: OrderTerms, limits: Limits, facts: Facts) -> None:
    bound = slippage_points(terms.max_slippage_points, limits)
    if terms.type != "MARKET" or bound is None:
        return
    if terms.price is None:  # neither the client nor the terminal has one: there is nothing to measure from
        raise cannot_compute("max_slippage_points", f"there is no quote for {terms.symbol}")
    quote = facts.tick.ask if terms.side == "BUY" else facts.tick.bid
    if not quote:
        raise cannot_compute("max_slippage_points", f"there is no quote for {terms.symbol}")
    require_within(
        "max_slippage_points",
        abs(quote - terms.price) / facts.spec.point if facts.spec.point else math.nan,
        bound,
        f"the market's distance from price {terms.price} in points",
        "look at the quote again and decide anew",
        slack=1e-6,
    )


def slippage_points(wanted: int | None, limits: Limits) -> int | None:
    """The tighter of the client's and the gateway's bound; None when neither is set."""
    bounds = [b for b in (wanted, limits.max_slippage_points) if b is not None]
    return min(bounds) if bounds else None


def slipped_points(terms: OrderTerms, price: float, point: float) -> float | None:
    """How many points worse than the client's price a market order was filled (negative: better); None when
    the client named no price.
    """
    if terms.type != "MARKET" or terms.price is None or not point:
        return None
    worse = price - terms.price if terms.side == "BUY" else terms.price - price
    return worse / point


def _limit(field: str, message: str, remedy: str) -> Refusal:
    return Refusal("LIMIT", field, message, remedy, final=True)
