"""What positions and account are worth at the quotes of the moment."""

import msgspec

from mt5crs.protocol.records import Account, Position

from . import rules
from .clock import BrokerClock
from .feed import STEP_MS
from .holdings import Holdings
from .market import Market
from .matching import profit
from .symbols import CONTRACTS


class Valuation:
    """Reckons anew when quotes or books have changed, and returns the same list until then."""

    def __init__(self, holdings: Holdings, market: Market, clock: BrokerClock, leverage: int) -> None:
        self._holdings = holdings
        self._market = market
        self._clock = clock
        self._leverage = leverage
        self._rendered: tuple[tuple[int, int, int], list[Position]] | None = None
        self._valued_account: tuple[list[Position], float, Account] | None = None

    def positions(self) -> list[Position]:
        """All of them, with price and profit."""
        key = (self._clock.time // STEP_MS, self._market.version, self._holdings.version)
        if self._rendered is None or self._rendered[0] != key:
            self._rendered = (key, [self.valued(position) for position in self._holdings.positions.values()])
        return self._rendered[1]

    def valued(self, position: Position) -> Position:
        """One of them, with price and profit."""
        contract = CONTRACTS[position.symbol]
        tick = self._market.tick(contract)
        price = tick.bid if position.type == "BUY" else tick.ask
        return msgspec.structs.replace(
            position,
            price_current=price,
            profit=profit(contract, position.type, position.volume, position.price_open, price),
        )

    def account(self, positions: list[Position]) -> Account:
        """The account with these positions."""
        known = self._valued_account
        if known is not None and known[0] is positions and known[1] == self._holdings.balance:
            return known[2]
        account = self._value_account(positions)
        self._valued_account = (positions, self._holdings.balance, account)
        return account

    def _value_account(self, positions: list[Position]) -> Account:
        floating = round(sum(p.profit for p in positions), 2)
        margin = round(
            sum(
                rules.margin_of(CONTRACTS[p.symbol], p.volume, p.price_open, self._leverage)
                for p in positions
            ),
            2,
        )
        equity = round(self._holdings.balance + floating, 2)
        return Account(
            balance=self._holdings.balance,
            equity=equity,
            profit=floating,
            margin=margin,
            margin_free=round(equity - margin, 2),
            margin_level=round(max(equity, 0.0) / margin * 100, 2) if margin else 0.0,
            leverage=self._leverage,
            currency="USD",
        )
