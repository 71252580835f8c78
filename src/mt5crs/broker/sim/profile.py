"""What a new simulated account is like."""

from msgspec import Struct

from mt5crs.protocol.fields import MarginMode, TradeMode


class Profile(Struct, frozen=True, kw_only=True):
    """The account a new simulated broker opens, and how it behaves."""

    login: int = 90_000_001
    server: str = "Sim-Demo"
    trade_mode: TradeMode = "DEMO"
    margin_mode: MarginMode = "HEDGING"
    balance: float = 10_000.0
    leverage: int = 100
    seed: int = 1


class Simulator(Struct, frozen=True, kw_only=True):
    """Everything a simulated broker is opened with. `directory` holds its books."""

    directory: str
    profile: Profile
    allow_faults: bool = False
