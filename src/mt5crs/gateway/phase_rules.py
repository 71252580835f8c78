"""What a phase allows an order. Pure: facts in, refusal or nothing out. `risk.py` judges the limits that a
magic number has in any phase.
"""

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from mt5crs.phases.profile import Profile
from mt5crs.protocol.fields import Side
from mt5crs.protocol.records import Order, Position, SymbolSpec, Tick
from mt5crs.protocol.requests import OrderTerms
from mt5crs.settings.gateway import Limits

from . import risk
from .refusal import Refusal

_WAIT = "wait until the phase allows it, or have the phase promoted (`mt5crs phase`)"


class Money(Struct, frozen=True, kw_only=True):
    """How the account reckons.

    `unit` is one unit of the profile's currency in account currency, `margin(symbol, side, volume)` what that
    binds. Both raise Refusal LIMIT when the terminal does not say.
    """

    currency: str
    unit: Callable[[], float]
    margin: Callable[[str, Side, float], float]


class OrderFacts(Struct, frozen=True, kw_only=True):
    """What the decision needs to know; positions and orders are those of the magic number."""

    spec: SymbolSpec
    tick: Tick
    positions: list[Position]
    orders: list[Order]
    netting: bool
    daily_profit: float
    last_minute: int
    money: Money


def reduces(
    terms: OrderTerms, positions: Iterable[Position], orders: Iterable[Order], *, netting: bool
) -> bool:
    """Whether a market order can only make smaller what is open: on a netting account, against the position,
    and with all working orders of its side no more than that. Hedging: every order opens a position.
    """
    if not netting or terms.type != "MARKET":
        return False
    held = sum((p.volume if p.type == "BUY" else -p.volume) for p in positions if p.symbol == terms.symbol)
    same = sum(o.volume_current for o in orders if o.symbol == terms.symbol and o.type.startswith(terms.side))
    against = -held if terms.side == "BUY" else held
    return terms.volume + same <= against + 1e-9


def check_order(terms: OrderTerms, profile: Profile, facts: OrderFacts) -> None:
    """Raise Refusal LIMIT, with the phase's limit as its field, if the order goes beyond the phase."""
    limits = profile.limits
    if limits.symbols is not None and terms.symbol not in limits.symbols:
        raise beyond(
            profile, "symbols", f"{terms.symbol} is not among {limits.symbols}", "trade an allowed symbol"
        )
    _check_collar(terms, profile, facts)
    if facts.last_minute >= limits.max_orders_per_minute:
        raise beyond(
            profile,
            "max_orders_per_minute",
            f"{facts.last_minute} orders were taken in the last minute, "
            f"the limit is {limits.max_orders_per_minute}",
            "send fewer orders",
        )
    after = risk.exposure(facts.positions, facts.orders, terms, netting=facts.netting)
    instruments = sorted(symbol for symbol, lots in after.items() if lots > 0)
    if len(instruments) > limits.max_instruments:
        raise beyond(
            profile,
            "max_instruments",
            f"{', '.join(instruments)} would be open or working, the limit is {limits.max_instruments}",
            "close what is open in another symbol first",
        )
    _check_money(terms, profile, facts, after)


def _check_collar(terms: OrderTerms, profile: Profile, facts: OrderFacts) -> None:
    """An order's price far from the market is a slip, whatever it says."""
    quote = facts.tick.ask if terms.side == "BUY" else facts.tick.bid
    prices = [price for price in (terms.price, quote) if price is not None]
    if len(prices) < 2:
        return
    if not quote > 0:
        raise risk.cannot_compute("price_collar_percent", f"there is no quote for {terms.symbol}")
    _within(
        profile,
        "price_collar_percent",
        abs(prices[0] - quote) / quote * 100,
        profile.limits.price_collar_percent,
        f"the distance of price {prices[0]} from the market, in percent,",
        "look at the quote again",
    )


def _check_money(terms: OrderTerms, profile: Profile, facts: OrderFacts, after: dict[str, float]) -> None:
    limits, money = profile.limits, facts.money
    unit = money.unit()
    size = money.margin(terms.symbol, terms.side, terms.volume)
    most = limits.trade_size * unit
    remedy = "send a smaller order"
    if not size <= most:  # asked only then: it costs a question to the broker
        remedy = obstacle(profile, terms.symbol, facts.spec, money) or remedy
    what = f"the margin of {terms.volume:g} lots of {terms.symbol} in {money.currency}"
    _within(profile, "trade_size", size, most, what, remedy)
    _within(
        profile,
        "position_limit",
        sum(money.margin(symbol, terms.side, lots) for symbol, lots in after.items() if lots > 0),
        limits.position_limit * unit,
        f"the margin of what could be open in {money.currency}",
        "close positions or cancel orders first",
    )
    if limits.daily_loss is not None:
        loss, bound = -facts.daily_profit, limits.daily_loss * unit
        if not loss < bound:
            _within(
                profile, "daily_loss", loss, 0.0, f"the day's loss in {money.currency}", _WAIT, told=bound
            )
    least = limits.min_expected_profit_percent
    if least is not None:
        if terms.expected_profit is None:
            raise beyond(
                profile,
                "expected_profit",
                "the order does not say what it is expected to earn, and the phase asks for at least "
                f"{least:g} % of its margin",
                "send `expected_profit`, in account currency",
            )
        _within(
            profile,
            "expected_profit",
            size * least / 100,
            terms.expected_profit,
            f"what the phase asks for ({least:g} % of a margin of {size:.2f} {money.currency})",
            "send only orders that are worth it",
            than="the order's expected profit",
        )


def obstacle(profile: Profile, symbol: str, spec: SymbolSpec, money: Money) -> str:
    """Why even a symbol's smallest lot is too much for a phase, with the arithmetic; empty if it is not."""
    smallest = money.margin(symbol, "BUY", spec.volume_min)
    unit, size = money.unit(), profile.limits.trade_size
    if smallest <= size * unit + 1e-9:
        return ""
    rate = "" if unit == 1.0 else f" x {unit:.6g} = {size * unit:.2f} {money.currency}"
    return (
        f"the smallest order of {symbol} is {spec.volume_min:g} lots, which bind a margin of {smallest:.2f} "
        f"{money.currency}; {profile.name} allows {size:.2f} {profile.currency}{rate}. "
        "Trade a smaller contract, an account with more leverage or a cent account"
    )


def tightened(limits: Limits, profile: Profile) -> Limits:
    """Limits of a magic number under a phase: the stricter of both where both say something."""
    points, failures = limits.max_slippage_points, limits.max_consecutive_failures
    own = profile.limits
    return msgspec.structs.replace(
        limits,
        dry_run=limits.dry_run or profile.dry_run,
        max_slippage_points=own.max_slippage_points
        if points is None
        else min(points, own.max_slippage_points),
        max_consecutive_failures=(
            own.max_consecutive_failures if failures is None else min(failures, own.max_consecutive_failures)
        ),
    )


def beyond(profile: Profile, field: str, message: str, remedy: str) -> Refusal:
    """The refusal for an order that goes beyond a phase."""
    return Refusal("LIMIT", field, f"phase {profile.name}: {message}", remedy, final=True)


def _within(
    profile: Profile,
    field: str,
    figure: float,
    bound: float,
    what: str,
    remedy: str,
    *,
    than: str = "the limit",
    told: float | None = None,
) -> None:
    """Raise Refusal unless the figure is a number and at most the bound; no comparison with NaN holds."""
    if figure <= bound + 1e-9:
        return
    if figure != figure:
        raise risk.cannot_compute(field, f"{what} is not known")
    raise beyond(
        profile, field, f"{what} is {figure:.8g}, {than} is {bound if told is None else told:.8g}", remedy
    )
