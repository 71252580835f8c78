"""What a profile's money is at the broker: its unit in account currency, and what an order binds.

Asks the broker, so the terminal's thread alone calls it.
"""

from __future__ import annotations

from collections.abc import Callable

from mt5crs.broker.interface import Broker, Calculation
from mt5crs.phases.profile import Profile
from mt5crs.protocol.fields import Side

from . import phase_rules, risk

_KEPT_S = 1.0
"""For so long the worth of a unit of money is taken for the same."""


class PhaseMoney:
    """Money as the account reckons it."""

    def __init__(self, broker: Broker, monotonic: Callable[[], float]) -> None:
        self._broker = broker
        self._monotonic = monotonic
        self._unit: dict[str, tuple[float, float]] = {}

    def of(self, profile: Profile, currency: str, symbols: list[str]) -> phase_rules.Money:
        """How the account reckons for a profile; one of the symbols has to be in the profile's currency."""
        return phase_rules.Money(
            currency=currency,
            unit=lambda: 1.0 if currency == profile.currency else self._unit_in(profile, currency, symbols),
            margin=self._margin,
        )

    def _margin(self, symbol: str, side: Side, volume: float) -> float:
        tick = self._broker.tick(symbol)
        price = 0.0 if tick is None else tick.ask if side == "BUY" else tick.bid
        if not price > 0:
            raise risk.cannot_compute("margin", f"there is no quote for {symbol}")
        question = Calculation(what="margin", symbol=symbol, side=side, volume=volume, price=price)
        margin = self._broker.calculate(question)
        if not 0 < margin < float("inf"):
            raise risk.cannot_compute(
                "margin", f"the broker reckons {margin} for {volume:g} lots of {symbol}"
            )
        return margin

    def _unit_in(self, profile: Profile, currency: str, symbols: list[str]) -> float:
        """A unit of the profile's currency in account currency, from what a move of 1 % earns on a symbol
        that is settled in the profile's currency.
        """
        now = self._monotonic()
        at, unit = self._unit.get(profile.currency, (-_KEPT_S, 0.0))
        if unit and now - at < _KEPT_S:
            return unit
        for symbol in symbols:
            spec, tick = self._broker.symbol(symbol), self._broker.tick(symbol)
            if spec is None or tick is None or spec.currency_profit != profile.currency or not tick.ask > 0:
                continue
            move = tick.ask * 0.01
            question = Calculation(
                what="profit", symbol=symbol, side="BUY", volume=1.0, price=tick.ask, close=tick.ask + move
            )
            unit = self._broker.calculate(question) / (move * spec.contract_size)
            if 0 < unit < float("inf"):
                self._unit[profile.currency] = (now, unit)
                return unit
        raise risk.cannot_compute(
            "trade_size",
            f"the account is in {currency}, and none of {', '.join(symbols)} is in {profile.currency}",
        )

    def obstacle(self, profile: Profile, symbols: list[str], currency: str) -> str:
        """Why a phase allows no order of any of the symbols; empty if it allows one.

        Raises BrokerError, and Refusal LIMIT when it cannot be told now.
        """
        money, found = (
            self.of(profile, currency, symbols),
            "the magic number has no limits, so no symbols",
        )
        for symbol in symbols if profile.limits.symbols is None else profile.limits.symbols:
            spec = self._broker.symbol(symbol)
            if spec is None:
                found = f"the broker has no symbol {symbol}"
                continue
            found = phase_rules.obstacle(profile, symbol, spec, money)
            if not found:
                return ""
        return found
