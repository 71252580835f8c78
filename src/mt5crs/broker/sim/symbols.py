"""What can be traded at the simulated broker."""

from msgspec import Struct

from mt5crs.broker.interface import TradedSymbol
from mt5crs.protocol.fields import Filling
from mt5crs.protocol.records import Session


class Contract(Struct, frozen=True, kw_only=True):
    """One symbol: `start_price` and `volatility` (per square root of a day) shape its quotes."""

    name: str
    description: str
    digits: int
    contract_size: float
    start_price: float
    volatility: float
    spread_points: int
    profit_currency: str
    volume_min: float = 0.01
    volume_max: float = 100.0
    volume_step: float = 0.01
    stops_level: int = 0
    fillings: tuple[Filling, ...]
    """Each symbol offers others, as symbols of real brokers do."""

    @property
    def point(self) -> float:
        """Smallest price change."""
        return float(10**-self.digits)

    def usd(self, amount: float, price: float) -> float:
        """An amount of the profit currency in US dollars, the account's currency."""
        return amount / price if self.profit_currency != "USD" else amount

    def spec(self, price: float) -> TradedSymbol:
        """The contract as the protocol describes it."""
        return TradedSymbol(
            symbol=self.name,
            description=self.description,
            digits=self.digits,
            point=self.point,
            contract_size=self.contract_size,
            volume_min=self.volume_min,
            volume_max=self.volume_max,
            volume_step=self.volume_step,
            stops_level=self.stops_level,
            tick_size=self.point,
            tick_value=self.usd(self.contract_size * self.point, price),
            currency_profit=self.profit_currency,
            margin_initial=0.0,
            trade_allowed=True,
            fillings=list(self.fillings),
            sessions=[Session(day=day, start_minute=0, end_minute=24 * 60) for day in range(7)],
        )


CONTRACTS = {
    contract.name: contract
    for contract in (
        Contract(
            name="EURUSD",
            description="Euro vs US Dollar",
            digits=5,
            contract_size=100_000,
            start_price=1.1,
            volatility=0.005,
            spread_points=10,
            profit_currency="USD",
            fillings=("FOK", "IOC", "RETURN"),
        ),
        Contract(
            name="GBPUSD",
            description="Pound Sterling vs US Dollar",
            digits=5,
            contract_size=100_000,
            start_price=1.28,
            volatility=0.006,
            spread_points=14,
            profit_currency="USD",
            fillings=("IOC",),
        ),
        Contract(
            name="USDJPY",
            description="US Dollar vs Japanese Yen",
            digits=3,
            contract_size=100_000,
            start_price=150.0,
            volatility=0.006,
            spread_points=12,
            profit_currency="JPY",
            fillings=("RETURN",),
        ),
        Contract(
            name="XAUUSD",
            description="Gold vs US Dollar",
            digits=2,
            contract_size=100,
            start_price=2400.0,
            volatility=0.01,
            spread_points=25,
            profit_currency="USD",
            fillings=("FOK",),
        ),
    )
}
