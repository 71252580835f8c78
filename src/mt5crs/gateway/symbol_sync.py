"""A request that only the legacy adapter makes: SYNC_ALL for one symbol, which must exist at the broker."""

from mt5crs.protocol.fields import Symbol
from mt5crs.protocol.requests import SyncAll


class SymbolSync(SyncAll, frozen=True, kw_only=True, tag="SYMBOL_SYNC"):
    """Answered as SYNC_ALL; UNKNOWN_SYMBOL when the broker has no such symbol. Never on the wire."""

    symbol: Symbol
