"""Field types every message is built from: their bounds are the protocol's bounds.

A bound on a float also refuses NaN and infinity, because no comparison with them holds.
"""

from typing import Annotated, Literal

from msgspec import Meta

VERSION: Literal[1] = 1
"""Protocol version spoken by this release; a request with another one is answered with BAD_VERSION."""

MAX_REQUEST_BYTES = 64 * 1024
"""Largest request frame the gateway accepts; larger ones make it drop the connection (ZMQ_MAXMSGSIZE)."""

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""Largest reply frame a client accepts; a snapshot of 100 000 positions fits."""

MAX_HISTORY = 10_000
"""Most deals and most closed orders in one reply; `history_complete` says whether there were more."""

Text = Annotated[str, Meta(max_length=256)]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+\Z")]
Symbol = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Magic = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Ticket = Annotated[int, Meta(ge=1, le=2**63 - 1)]
TicketOrZero = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53)]
Volume = Annotated[float, Meta(gt=0, le=1e6)]
Price = Annotated[float, Meta(gt=0, le=1e12)]
Amount = Annotated[float, Meta(ge=-1e15, le=1e15)]
NonNegative = Annotated[float, Meta(ge=0, le=1e15)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Points = Annotated[int, Meta(ge=0, le=1_000_000)]
Epoch = Annotated[int, Meta(ge=1, le=2**53)]

Side = Literal["BUY", "SELL"]
Execution = Literal["MARKET", "LIMIT", "STOP"]
Filling = Literal["FOK", "IOC", "RETURN"]
TradeMode = Literal["DEMO", "CONTEST", "REAL"]
MarginMode = Literal["NETTING", "EXCHANGE", "HEDGING"]
OrderType = Literal[
    "BUY",
    "SELL",
    "BUY_LIMIT",
    "SELL_LIMIT",
    "BUY_STOP",
    "SELL_STOP",
    "BUY_STOP_LIMIT",
    "SELL_STOP_LIMIT",
    "CLOSE_BY",
]
OrderState = Literal[
    "STARTED",
    "PLACED",
    "CANCELED",
    "PARTIAL",
    "FILLED",
    "REJECTED",
    "EXPIRED",
    "REQUEST_ADD",
    "REQUEST_MODIFY",
    "REQUEST_CANCEL",
]
DealType = Literal["BUY", "SELL", "BALANCE", "OTHER"]
DealEntry = Literal["IN", "OUT", "INOUT", "OUT_BY"]
Outcome = Literal["FILLED", "PARTIAL", "PLACED", "CANCELED", "REJECTED", "UNRESOLVED", "DRY_RUN"]
TradingState = Literal["ACTIVE", "REDUCING"]
HaltScope = Literal["FLEET", "MAGIC"]
ErrorCode = Literal[
    "BAD_MESSAGE",
    "BAD_VERSION",
    "UNKNOWN_KIND",
    "BAD_FIELD",
    "TOO_LARGE",
    "FORBIDDEN",
    "BUSY",
    "NOT_READY",
    "FENCED",
    "LEASE_HELD",
    "HALTED",
    "LIMIT",
    "DUPLICATE_ID",
    "UNRESOLVED",
    "EXPIRED",
    "UNKNOWN_SYMBOL",
    "UNKNOWN_ORDER",
    "UNKNOWN_POSITION",
    "BROKER",
    "INTERNAL",
]
