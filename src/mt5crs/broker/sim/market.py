"""Quotes and terms of the simulated broker's symbols: moving, fixed by hand, standing still, or closed."""

from collections.abc import Callable

import msgspec

from mt5crs.broker.interface import TradedSymbol
from mt5crs.protocol.fields import Filling
from mt5crs.protocol.records import Tick

from .clock import BrokerClock
from .faults import Faults
from .feed import STEP_MS, quote
from .symbols import CONTRACTS, Contract


class Market:
    """The same seed and the same time give the same quotes."""

    def __init__(self, seed: int, clock: BrokerClock, faults: Callable[[], Faults]) -> None:
        """`faults`: those in force."""
        self._seed = seed
        self._clock = clock
        self._faults = faults
        self.version = 0
        """Grows when quotes may have changed without time having passed."""
        self._prices: dict[str, tuple[float, float]] = {}
        self._still: dict[str, Tick] = {}
        self._ticks: dict[str, Tick] = {}
        self._tick_key = (-1, -1)

    def fix(self, symbol: str, bid: float, ask: float) -> None:
        """Quote it so until it is freed."""
        self._prices[symbol] = (bid, ask)
        self.version += 1

    def free(self, symbol: str) -> None:
        """Let its price move again."""
        self._prices.pop(symbol, None)
        self.version += 1

    def tick(self, contract: Contract) -> Tick:
        """Its quote of this moment."""
        key = (self._clock.time // STEP_MS, self.version)
        if key != self._tick_key:
            self._ticks, self._tick_key = {}, key
        tick = self._ticks.get(contract.name)
        if tick is None:
            tick = self._ticks[contract.name] = self._quote(contract)
        return tick

    def spec(self, contract: Contract) -> TradedSymbol:
        """What the broker takes of it, as the faults leave it."""
        spec, taken = contract.spec(self.tick(contract).bid), self._faults().rules.get(contract.name)
        if taken is None:
            return spec
        rules = msgspec.structs.asdict(taken)
        fillings = rules.pop("fillings") or spec.fillings
        return msgspec.structs.replace(spec, trade_allowed=taken.mode == "FULL", fillings=fillings, **rules)

    def first_filling(self, symbol: str) -> Filling | None:
        """What a terminal sends by itself: the first that the symbol offers. None for an unknown symbol."""
        contract = CONTRACTS.get(symbol)
        return self.spec(contract).fillings[0] if contract else None

    def closed(self, symbol: str) -> bool:
        """Whether nothing is traded in it now."""
        return self._faults().market_closed or symbol in self._faults().closed

    def _quote(self, contract: Contract) -> Tick:
        name = contract.name
        if name in self._faults().terminal.still or name in self._faults().closed:
            return self._still.setdefault(name, self._moving_quote(contract))
        self._still.pop(name, None)
        return self._moving_quote(contract)

    def _moving_quote(self, contract: Contract) -> Tick:
        fixed = self._prices.get(contract.name)
        if fixed is None:
            tick = quote(contract, self._seed, self._clock.time)
            return msgspec.structs.replace(tick, time_msc=tick.time_msc + self._clock.shift)
        return Tick(symbol=contract.name, bid=fixed[0], ask=fixed[1], time_msc=self._clock.stamp())
