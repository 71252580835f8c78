"""The JSON that existing clients speak, to and from our own messages. Pure.

Three dialects: `{"action": "SYNC_ALL", …}`, `{"uuid", "action", …}` and `{"command", …}`.
"""

import datetime
import hashlib
import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import VERSION, Filling, Symbol, Ticket
from mt5crs.protocol.records import Position
from mt5crs.protocol.replies import AccountState, Error, OrderResult, Reply, Snapshot

SIGNATURE_LIFE_S = 5.0
_VALID_MS = 5000
_NO_EPOCH = 1
"""Stands in trades until the door has taken their lease."""
_NO_FILLING: Filling = "IOC"
"""Stands in market orders until the desk knows what the symbol offers. It is part of their fingerprint: what
an older release has journalled must stay the same when it is sent again.
"""
_Finite = Annotated[float, Meta(ge=0, le=1e12)]
_Lots = Annotated[float, Meta(gt=0, le=1e6)]
_Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+\Z")]


Trade = ask.OrderSend | ask.PositionClose
"""What a message that changes the broker's books becomes."""


class LegacyError(ValueError):
    """A message that is not one of the known shapes, or not allowed; the text goes to the client."""


class Question(Struct, kw_only=True):
    """One message of an old client, every key any dialect uses. Unknown keys are ignored, as these clients
    expect.
    """

    action: str = ""
    command: str = ""
    uuid: _Id | None = None
    magic_number: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    symbol: Symbol | None = None
    type: str = ""
    volume: _Lots | None = None
    price: _Finite | None = None
    sl: _Finite | None = None
    tp: _Finite | None = None
    magic: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    risk_signature: str = ""
    ticket: Ticket | None = None
    order: dict[str, Any] | None = None


class CommandOrder(Struct, kw_only=True):
    """The `order` of `{"command": "ORDER"}`. Without a time stamp a repetition could not be told from a new
    order.
    """

    symbol: Symbol
    side: Literal["BUY", "SELL"]
    type: Literal["MARKET", "LIMIT"]
    volume: _Lots
    timestamp: str | int | float
    price: _Finite | None = None
    stop_loss: _Finite | None = None
    take_profit: _Finite | None = None


def parse(text: bytes) -> Question:
    """One message. Raises LegacyError naming the field."""
    try:
        return msgspec.json.decode(text, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LegacyError(f"bad message: {str(error)[:200]}") from None


def name_of(question: Question) -> str:
    """Action or command."""
    return question.action or question.command


def is_trade(question: Question) -> bool:
    """Whether the message wants to change the broker's books."""
    return question.action in ("OPEN", "CLOSE") or question.command == "ORDER"


def to_request(question: Question, client: str, magics: frozenset[int]) -> ask.AnyRequest:
    """Our request for a message (not for pings); trades still lack their epoch. Raises LegacyError."""
    first = min(magics, default=0)
    head: dict[str, Any] = {"v": VERSION, "id": question.uuid or "legacy", "client": client}
    if question.action == "SYNC_ALL":
        return _sync(question, head, magics)
    if question.action == "GET_ACCOUNT" or question.command == "GET_BALANCE":
        return ask.AccountQuery(**head, magic=first)
    if question.action == "GET_POSITIONS" or question.command == "GET_POSITION":
        if question.command and question.symbol is None:
            raise LegacyError("GET_POSITION needs `symbol`")
        return ask.SyncAll(**head, magic=first, whole_account=True, history_since_msc=None)
    if question.action == "OPEN":
        return _open(question, head, first)
    if question.action == "CLOSE":
        if question.uuid is None or question.ticket is None:
            raise LegacyError("CLOSE needs `uuid` and `ticket`")
        return ask.PositionClose(
            **head,
            magic=first,
            client_order_id=question.uuid,
            lease_epoch=_NO_EPOCH,
            valid_ms=_VALID_MS,
            position=question.ticket,
            volume=question.volume,
            max_slippage_points=None,
        )
    if question.command == "ORDER":
        return _command_order(question, head, first)
    raise LegacyError(f"unknown action or command {name_of(question)[:40]!r}")


def _sync(question: Question, head: dict[str, Any], magics: frozenset[int]) -> ask.SyncAll:
    magic = question.magic_number
    if magic is None:
        raise LegacyError("SYNC_ALL needs `magic_number`")
    if magics and magic not in magics:
        raise LegacyError(f"magic_number {magic} is not yours; yours: {sorted(magics)}")
    return ask.SyncAll(**head, magic=magic, whole_account=False, history_since_msc=None)


def _open(question: Question, head: dict[str, Any], magic: int) -> ask.OrderSend:
    if question.uuid is None or question.symbol is None or question.volume is None:
        raise LegacyError("OPEN needs `uuid`, `symbol` and `volume`")
    if question.type not in ("BUY", "SELL"):
        raise LegacyError("`type` must be BUY or SELL")
    if question.magic != magic:
        raise LegacyError(f"`magic` is {question.magic}, yours is {magic}")
    return ask.OrderSend(
        **head,
        magic=magic,
        client_order_id=question.uuid,
        lease_epoch=_NO_EPOCH,
        valid_ms=_VALID_MS,
        symbol=question.symbol,
        side="BUY" if question.type == "BUY" else "SELL",
        type="MARKET",
        volume=question.volume,
        price=question.price or None,
        sl=question.sl or None,
        tp=question.tp or None,
        max_slippage_points=None,
        filling=_NO_FILLING,
        expiration_msc=None,
    )


def _command_order(question: Question, head: dict[str, Any], magic: int) -> ask.OrderSend:
    try:
        order = msgspec.convert(question.order, CommandOrder)
    except msgspec.ValidationError as error:
        raise LegacyError(f"order: {error}") from None
    content = msgspec.json.encode(question.order, order="deterministic")
    if order.type == "LIMIT" and not order.price:
        raise LegacyError("a LIMIT order needs `price`")
    return ask.OrderSend(
        **head,
        magic=magic,
        client_order_id="cmd-" + hashlib.sha256(content).hexdigest()[:40],
        lease_epoch=_NO_EPOCH,
        valid_ms=_VALID_MS,
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        volume=order.volume,
        price=order.price or None,
        sl=order.stop_loss or None,
        tp=order.take_profit or None,
        max_slippage_points=None,
        filling=_NO_FILLING if order.type == "MARKET" else "RETURN",
        expiration_msc=None,
    )


def query_of(trade: Trade) -> ask.OrderQuery:
    """The question what became of a trade."""
    return ask.OrderQuery(
        v=VERSION, id=trade.id, client=trade.client, magic=trade.magic, client_order_id=trade.client_order_id
    )


def check_signature(signature: str, now: float) -> None:
    """Raise LegacyError unless the text is RISK_PASS:<checksum>:<ISO time> and fresh.

    The checksum's recipe is the client's own and not checked; our limits are.
    """
    word, _, rest = signature.partition(":")
    checksum, _, stamp = rest.partition(":")
    if word != "RISK_PASS" or not checksum:
        raise LegacyError("`risk_signature` must be RISK_PASS:<checksum>:<ISO time>")
    try:
        made = datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        raise LegacyError("`risk_signature` has no ISO time") from None
    if made.tzinfo is None:
        made = made.replace(tzinfo=datetime.timezone.utc)
    age = now - made.timestamp()
    if not math.isfinite(age) or abs(age) > SIGNATURE_LIFE_S:
        raise LegacyError(f"`risk_signature` is {age:.1f} s old, at most {SIGNATURE_LIFE_S:g} s are allowed")


# --- answers -----------------------------------------------------------------------------------------------


def pong(question: Question, now: float) -> dict[str, Any]:
    """Answer to a JSON ping."""
    if question.command:
        return {"status": "ONLINE", "server_time": _iso(now)}
    return {"uuid": question.uuid, "status": "ok", "server_time": _iso(now), "latency_ms": 0.0}


def failure(question: Question | None, code: str, message: str, now: float) -> dict[str, Any]:
    """Answer to a message that failed, in the dialect of the message."""
    if question is not None and question.command:
        return {"code": _command_code(code), "message": message}
    if question is not None and is_trade(question):
        unsure = code in ("BUSY", "UNRESOLVED", "INTERNAL")
        status = "UNRESOLVED" if unsure else "REJECTED"  # never call rejected what may have been executed
        return {
            "uuid": question.uuid,
            "status": status,
            "error_code": code,
            "error_msg": message,
            "timestamp": _iso(now),
        }
    if question is not None and question.uuid is not None:
        return {"uuid": question.uuid, "status": "error", "message": message, "timestamp": _iso(now)}
    return {"status": "ERROR", "message": message, "account": {}, "positions": []}


def to_answer(
    question: Question, reply: Reply, magics: frozenset[int], now: float, took_s: float
) -> dict[str, Any]:
    """Answer to a message that our gateway has replied to."""
    if isinstance(reply, Error):
        return failure(question, reply.code, f"{reply.message}; {reply.remedy}", now)
    if isinstance(reply, Snapshot):
        return _positions(question, reply, magics, now)
    if isinstance(reply, AccountState):
        return _account(question, reply, now)
    if isinstance(reply, OrderResult):
        return _order(question, reply, now, took_s)
    return failure(question, "INTERNAL", f"unexpected {type(reply).__name__}", now)


def _account(question: Question, reply: AccountState, now: float) -> dict[str, Any]:
    account = reply.account
    if question.command:
        return {"code": 200, "balance": account.balance}
    return {
        "uuid": question.uuid,
        "status": "ok",
        "balance": account.balance,
        "equity": account.equity,
        "margin": account.margin,
        "free_margin": account.margin_free,
        "margin_level": account.margin_level,
        "currency": account.currency,
        "timestamp": _iso(now),
    }


def _positions(question: Question, reply: Snapshot, magics: frozenset[int], now: float) -> dict[str, Any]:
    if question.action == "SYNC_ALL":
        return _synced(reply)
    mine = [
        p
        for p in reply.positions
        if (not magics or p.magic in magics) and question.symbol in (None, p.symbol)
    ]
    if question.command:
        return {"code": 200, "position": _plain_position(mine[0]) if mine else {}}
    return {
        "uuid": question.uuid,
        "status": "ok",
        "positions": [_plain_position(p) for p in mine],
        "timestamp": _iso(now),
    }


def _synced(reply: Snapshot) -> dict[str, Any]:
    account = reply.account
    return {
        "status": "OK",
        "account": {
            "balance": account.balance,
            "equity": account.equity,
            "margin_free": account.margin_free,
            "margin_used": account.margin,
            "margin_level": account.margin_level,
            "leverage": account.leverage,
        },
        "positions": [
            {
                "symbol": p.symbol,
                "ticket": p.ticket,
                "volume": p.volume,
                "profit": p.profit,
                "price_current": p.price_current,
                "price_open": p.price_open,
                "type": p.type,
                "time_open": p.time_msc // 1000,
            }
            for p in reply.positions
        ],
        "message": f"{len(reply.positions)} positions of magic {reply.magic}",
    }


def _plain_position(p: Position) -> dict[str, Any]:
    return {
        "ticket": p.ticket,
        "symbol": p.symbol,
        "type": p.type,
        "volume": p.volume,
        "open_price": p.price_open,
        "current_price": p.price_current,
        "profit": p.profit,
    }


def _order(question: Question, reply: OrderResult, now: float, took_s: float) -> dict[str, Any]:
    if reply.outcome not in ("FILLED", "PARTIAL", "PLACED"):
        code = reply.outcome if reply.outcome in ("UNRESOLVED", "DRY_RUN") else str(reply.retcode)
        return failure(question, code, f"{reply.outcome}: {reply.message}", now)
    if question.command:
        return {"code": 200, "order_id": reply.order}
    answer = {
        "uuid": question.uuid,
        "status": "FILLED",
        "ticket": reply.position_ticket or reply.order,
        "execution_time": _iso(now),
        "latency_ms": round(took_s * 1000, 3),
    }
    if question.action == "CLOSE":
        return {**answer, "ticket": question.ticket, "close_price": reply.price}
    return {**answer, "symbol": question.symbol, "volume": reply.volume, "price": reply.price}


def _command_code(code: str) -> int:
    if code in ("BUSY", "UNRESOLVED"):
        return 504
    return 500 if code in ("INTERNAL", "BROKER", "NOT_READY") else 400


def _iso(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).isoformat(timespec="milliseconds")
