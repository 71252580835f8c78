"""Whether an order may be sent. Used by the terminal's thread."""

import math

from mt5crs.broker.interface import Books, Broker
from mt5crs.protocol import requests as ask
from mt5crs.settings.gateway import Limits

from . import risk
from .account_view import AccountView
from .breaker import Breaker
from .phases import Phases
from .refusal import Refusal
from .skew import Skew
from .taken import check_taken
from .unresolved import Unresolved


class OrderChecks:
    """Gathers what is known of symbol, account and day, and asks limits, phase and the symbol's terms."""

    def __init__(
        self,
        broker: Broker,
        account: AccountView,
        unresolved: Unresolved,
        breaker: Breaker,
        phases: Phases | None,
        skew: Skew,
        max_clock_skew_s: float,
        quote_life_s: float,
    ) -> None:
        self._broker = broker
        self._account = account
        self._unresolved = unresolved
        self._breaker = breaker
        self._phases = phases
        self._skew = skew
        self._max_skew_ms = max_clock_skew_s * 1000
        self._quote_life_ms = quote_life_s * 1000

    def check_order(self, terms: ask.OrderTerms, books: Books, limits: Limits) -> None:
        """Raise Refusal when it may not be sent, BrokerError when the broker could not be asked."""
        if terms.type != "MARKET" and terms.price is None:
            raise Refusal(
                "BAD_FIELD", "price", f"a {terms.type} order needs a price", "send the price", final=True
            )
        self._require_clock()
        books = self._unresolved.view(books)
        positions = [p for p in books.positions if p.magic == terms.magic]
        orders = [o for o in books.orders if o.magic == terms.magic]
        spec, tick = self._broker.symbol(terms.symbol), self._broker.tick(terms.symbol)
        if spec is None or tick is None:
            raise Refusal(
                "UNKNOWN_SYMBOL",
                "symbol",
                f"the broker has no symbol {terms.symbol}",
                "use the broker's own name of the symbol",
                final=True,
            )
        netting = books.identity.margin_mode != "HEDGING"
        if netting:
            risk.check_unmixed(terms, books.positions, books.orders)
        risk.check_order(
            terms,
            limits,
            risk.Facts(
                spec=spec,
                tick=tick,
                positions=positions,
                orders=orders,
                netting=netting,
                daily_profit=self._account.daily.get(terms.magic, math.nan),
                failures=self._breaker.failures.get(terms.magic, 0),
                value_per_lot=lambda symbol: self._value_per_lot(symbol, books.time_msc),
            ),
        )
        if self._phases is not None:
            self._phases.check(
                terms, books, spec, tick, limits, self._account.daily.get(terms.magic, math.nan)
            )
        check_taken(terms, spec, tick)
        if not spec.offers(terms.filling, terms.type):
            offered = ", ".join(spec.fillings) or "none"
            raise Refusal(
                "BAD_FIELD",
                "filling",
                f"{terms.symbol} does not take {terms.filling} for a {terms.type} order (offered: {offered})",
                "use one of the `fillings` in the symbol's specification",
                final=True,
            )

    def _require_clock(self) -> None:
        """Raise Refusal NOT_READY while the time of the gateway and that of the broker differ too much: then
        neither today's loss nor what became of an order can be found for sure.
        """
        skew = self._skew.ms()
        if skew is not None and abs(skew) > self._max_skew_ms:
            raise Refusal(
                "NOT_READY",
                "clock",
                f"the gateway's idea of the broker's time is {abs(skew) / 1000:.0f} s "
                f"{'ahead of' if skew > 0 else 'behind'} what happens at the broker",
                "put this host's clock right; restart the gateway if it lasts",
                retry_ms=5000,
            )

    def _value_per_lot(self, symbol: str, now_msc: int) -> float:
        spec, tick = self._broker.symbol(symbol), self._broker.tick(symbol)
        return risk.worth_of_lot(symbol, spec, tick, now_msc, self._quote_life_ms)
