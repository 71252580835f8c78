"""The JSON that existing clients speak, to and from our own messages. Pure. docs/existing-clients.md has the
dialects: `{"action": "SYNC_ALL", …}`, `{"uuid", "action", …}` and `{"command", …}`.
"""

import datetime
import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta, Struct

from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import VERSION, Filling, Symbol, Ticket
from mt5crs.protocol.plain_json import PlainJsonError, read_object
from mt5crs.protocol.records import HaltInfo, Order, Position, Tick
from mt5crs.protocol.replies import AccountState, Error, OrderResult, Reply, Snapshot

from .symbol_sync import SymbolSync

SIGNATURE_LIFE_S = 5.0
_VALID_MS = 5000
_NO_EPOCH = 1
"""Stands in trades until the door has taken their lease."""
_NO_FILLING: Filling = "IOC"
"""Stands in market orders until the desk knows what the symbol offers. It is part of their fingerprint: what
an older release has journalled must stay the same when it is sent again.
"""
_SHOWN = 64
"""Longest `uuid` that is repeated in a refusal of the message."""
_Finite = Annotated[float, Meta(ge=0, le=1e12)]
_Lots = Annotated[float, Meta(gt=0, le=1e6)]
_Id = Annotated[str, Meta(min_length=1, max_length=_SHOWN, pattern=r"^[A-Za-z0-9._:-]+\Z")]
_MagicOrNone = Annotated[int, Meta(ge=0, le=2**63 - 1)] | None
_WORDS = ("action", "command", "type", "side")
"""Keys whose value is a word in any case."""
_WITH_UUID = frozenset({"PING", "GET_ACCOUNT", "GET_POSITIONS", "OPEN", "CLOSE", "CANCEL"})
_MAYBE_EXECUTED = frozenset({"BUSY", "UNRESOLVED", "INTERNAL"})


Trade = ask.OrderSend | ask.PositionClose | ask.OrderCancel
"""What a message that changes the broker's books becomes."""


class Question(Struct, kw_only=True):
    """One message of an old client, every key any dialect uses. Unknown keys are ignored, as these clients
    expect.
    """

    action: str = ""
    command: str = ""
    uuid: _Id | None = None
    magic_number: _MagicOrNone = None
    symbol: Symbol | None = None
    type: str = ""
    volume: _Lots | None = None
    price: _Finite | None = None
    sl: _Finite | None = None
    tp: _Finite | None = None
    magic: _MagicOrNone = None
    risk_signature: str = ""
    ticket: Ticket | None = None
    order: dict[str, Any] | None = None
    order_id: Ticket | None = None
    timestamp: Any = None


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


class LegacyError(ValueError):
    """A message that is not one of the known shapes, or not allowed; the text goes to the client.

    `question`: as much of the message as could be read, so that the answer keeps its dialect and `uuid`.
    """

    def __init__(self, why: str, question: Question | None = None) -> None:
        super().__init__(why)
        self.question = question


def parse(text: bytes) -> Question:
    """One message. Raises LegacyError naming the field."""
    try:
        message = read_object(text)
    except PlainJsonError as error:
        raise LegacyError(f"bad message: {error}", _head(error.found)) from None
    given = _in_capitals({key: value for key, value in message.items() if value is not None})
    try:
        return msgspec.convert(given, Question)
    except msgspec.ValidationError as error:
        raise LegacyError(f"bad message: {str(error)[:200]}", _head(given)) from None


def _head(message: dict[str, Any]) -> Question:
    """Whose message it is, of one that cannot be used: unchecked, for its refusal only."""
    found = _in_capitals(message)
    action, command, uuid = (found.get(key) for key in ("action", "command", "uuid"))
    return Question(
        action=action if isinstance(action, str) else "",
        command=command if isinstance(command, str) else "",
        uuid=uuid if isinstance(uuid, str) and len(uuid) <= _SHOWN else None,
    )


def _in_capitals(message: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.upper() if key in _WORDS and isinstance(value, str) else value
        for key, value in message.items()
    }


def name_of(question: Question) -> str:
    """Action or command."""
    return question.action or question.command


def is_trade(question: Question) -> bool:
    """Whether the message wants to change the broker's books."""
    return question.action in ("OPEN", "CLOSE", "CANCEL") or question.command in ("ORDER", "CANCEL")


def to_request(question: Question, client: str, magics: frozenset[int]) -> ask.AnyRequest:
    """Our request for a message (not for pings); trades still lack their epoch. Raises LegacyError."""
    head: dict[str, Any] = {"v": VERSION, "id": question.uuid or "legacy", "client": client}
    first = min(magics, default=0)
    if question.action == "SYNC_ALL":
        return _sync(head, _own_magic("magic_number", question.magic_number, magics))
    if question.action == "GET_ACCOUNT" or question.command == "GET_BALANCE":
        return ask.AccountQuery(**head, magic=first)
    if question.action == "GET_POSITIONS" or question.command == "GET_POSITION":
        if question.command and question.symbol is None:
            raise LegacyError("GET_POSITION needs `symbol`")
        return _sync(head, first, question.symbol)
    if question.action == "OPEN":
        return _open(question, head, magics)
    if question.action == "CLOSE":
        return _close(question, head, magics)
    if question.action == "CANCEL" or question.command == "CANCEL":
        return _cancel(question, head, magics)
    if question.command == "ORDER":
        return _command_order(question, head, magics)
    raise LegacyError(f"unknown action or command {name_of(question)[:40]!r}")


def _own_magic(key: str, given: int | None, magics: frozenset[int]) -> int:
    """The magic number that is meant. 0 or none, these clients' default, stands for the client's only one."""
    if given:
        if magics and given not in magics:
            raise LegacyError(f"{key} {given} is not yours; yours: {sorted(magics)}")
        return given
    if len(magics) != 1:
        raise LegacyError(
            f"`{key}` is {0 if given == 0 else 'missing'}, which stands for a client's only magic number, "
            f"and this client has {len(magics) or 'all'}; name one{f' of {sorted(magics)}' if magics else ''}"
        )
    (only,) = magics
    return only


def _sync(head: dict[str, Any], magic: int, symbol: str | None = None) -> ask.SyncAll:
    about: dict[str, Any] = {**head, "magic": magic, "whole_account": True, "history_since_msc": None}
    return ask.SyncAll(**about) if symbol is None else SymbolSync(**about, symbol=symbol)


def _submission(head: dict[str, Any], magic: int, client_order_id: str) -> dict[str, Any]:
    return {
        **head,
        "magic": magic,
        "client_order_id": client_order_id,
        "lease_epoch": _NO_EPOCH,
        "valid_ms": _VALID_MS,
    }


def _open(question: Question, head: dict[str, Any], magics: frozenset[int]) -> ask.OrderSend:
    if question.uuid is None or question.symbol is None or question.volume is None:
        raise LegacyError("OPEN needs `uuid`, `symbol` and `volume`")
    if question.type not in ("BUY", "SELL"):
        raise LegacyError("`type` must be BUY or SELL")
    return ask.OrderSend(
        **_submission(head, _own_magic("magic", question.magic, magics), question.uuid),
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


def _close(question: Question, head: dict[str, Any], magics: frozenset[int]) -> ask.PositionClose:
    if question.uuid is None or question.ticket is None:
        raise LegacyError("CLOSE needs `uuid` and `ticket`")
    return ask.PositionClose(
        **_submission(head, _own_magic("magic", question.magic, magics), question.uuid),
        position=question.ticket,
        volume=question.volume,
        max_slippage_points=None,
    )


def _cancel(question: Question, head: dict[str, Any], magics: frozenset[int]) -> ask.OrderCancel:
    if question.command:
        if question.order_id is None or question.timestamp is None:
            raise LegacyError("CANCEL needs `order_id` and `timestamp`")
        order, client_order_id = question.order_id, _id_of([question.order_id, question.timestamp])
    else:
        if question.uuid is None or question.ticket is None:
            raise LegacyError("CANCEL needs `uuid` and `ticket`")
        order, client_order_id = question.ticket, question.uuid
    magic = _own_magic("magic", question.magic, magics)
    return ask.OrderCancel(**_submission(head, magic, client_order_id), order=order)


def _command_order(question: Question, head: dict[str, Any], magics: frozenset[int]) -> ask.OrderSend:
    try:
        order = msgspec.convert(_in_capitals(question.order or {}), CommandOrder)
    except msgspec.ValidationError as error:
        raise LegacyError(f"order: {error}") from None
    if order.type == "LIMIT" and not order.price:
        raise LegacyError("a LIMIT order needs `price`")
    return ask.OrderSend(
        **_submission(head, _own_magic("magic", question.magic, magics), _id_of(question.order)),
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


def _id_of(content: object) -> str:
    """Client order id of a message without `uuid`: the same content is the same order."""
    text = msgspec.json.encode(content, order="deterministic")
    return "cmd-" + hashlib.sha256(text).hexdigest()[:40]


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


class _Untold(Exception):  # noqa: N818  (an answer, not a malfunction)
    """A failure found while an answer is made: its code and sentence."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.more = more


def pong(question: Question, now: float, took_s: float, why_not_ready: str) -> dict[str, Any]:
    """Answer to a JSON ping: the gateway is there; `ready` says whether its terminal can be used."""
    told: dict[str, Any] = {"server_time": _iso(now), "ready": not why_not_ready, "reason": why_not_ready}
    if question.command:
        return {**_uuid(question), "status": "ONLINE", **told}
    return {**_uuid(question), "status": "ok", **told, "latency_ms": round(took_s * 1000, 3)}


def failure(question: Question | None, code: str, message: str, now: float) -> dict[str, Any]:
    """Answer to a message that failed, in the dialect of the message. `error` is in every one of them, and a
    list or a sum of money in none: an empty one would be read as "no positions".
    """
    told = {"error": code, "message": message}
    if question is not None and question.command:
        return {**_uuid(question), "code": _command_code(code), **told}
    told |= {"error_code": code, "error_msg": message}
    if question is None or name_of(question) not in _WITH_UUID:
        return {**_uuid(question), "status": "ERROR", **told}
    status = "error"
    if is_trade(question):  # never call rejected what may have been executed
        status = "UNRESOLVED" if code in _MAYBE_EXECUTED else "REJECTED"
    return {**_uuid(question), "status": status, **told, "timestamp": _iso(now)}


def to_answer(
    question: Question,
    reply: Reply,
    magics: frozenset[int],
    unresolved: Sequence[str],
    now: float,
    took_s: float,
) -> dict[str, Any]:
    """Answer to a message that our gateway has replied to. `unresolved`: client order ids of the client's
    magic numbers whose fate is not known.
    """
    try:
        if isinstance(reply, Error):
            raise _Untold(reply.code, f"{reply.message}; {reply.remedy}")
        if isinstance(reply, AccountState):
            return _account(question, reply, now)
        if isinstance(reply, OrderResult):
            return _order(question, reply, now, took_s)
        if not isinstance(reply, Snapshot):
            raise _Untold("INTERNAL", f"unexpected {type(reply).__name__}")
        if question.action == "SYNC_ALL":
            return _synced(question, reply)
        return _positions(question, reply, magics, unresolved, now)
    except _Untold as why:
        return {**failure(question, why.code, str(why), now), **why.more}


def _uuid(question: Question | None) -> dict[str, Any]:
    return {} if question is None or question.uuid is None else {"uuid": question.uuid}


def _account(question: Question, reply: AccountState, now: float) -> dict[str, Any]:
    if not reply.identity.connected:
        raise _Untold(
            "NOT_READY",
            "the terminal is not connected, so its money is of an unknown age; check its connection to the "
            "trade server",
        )
    account = reply.account
    if question.command:
        return {**_uuid(question), "code": 200, "balance": account.balance}
    return {
        **_uuid(question),
        "status": "ok",
        "balance": account.balance,
        "equity": account.equity,
        "margin": account.margin,
        "free_margin": account.margin_free,
        "margin_level": account.margin_level,
        "currency": account.currency,
        "timestamp": _iso(now),
    }


def _synced(question: Question, reply: Snapshot) -> dict[str, Any]:
    account, magic = reply.account, reply.magic
    mine = [p for p in reply.positions if p.magic == magic]
    halts = _in_force(reply.halts, frozenset({magic}))
    answer: dict[str, Any] = {
        **_uuid(question),
        "status": "OK",
        "account": {
            "login": reply.identity.login,
            "server": reply.identity.server,
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
                "magic": p.magic,
            }
            for p in mine
        ],
        "orders": [_plain_order(o) for o in reply.orders if o.magic == magic],
        "other_positions": len(reply.positions) - len(mine),
        "unresolved": list(reply.unresolved),
        "halts": halts,
        "message": f"{len(mine)} positions of magic {magic}",
    }
    if halts:
        answer |= {"status": "HALTED", "message": f"{answer['message']}; {_halted(halts)}"}
    if reply.unresolved:
        why = _unknown_fate(reply.unresolved)
        answer |= {"status": "UNRESOLVED", "error": "UNRESOLVED", "message": why}
        answer |= {"error_code": "UNRESOLVED", "error_msg": why}
    return _told_or_left_out(answer)


def _positions(
    question: Question, reply: Snapshot, magics: frozenset[int], unresolved: Sequence[str], now: float
) -> dict[str, Any]:
    def ours(item: Position | Order) -> bool:
        return (not magics or item.magic in magics) and question.symbol in (None, item.symbol)

    mine = [p for p in reply.positions if ours(p)]
    beside: dict[str, Any] = {
        "positions": [_plain_position(p) for p in mine],
        "orders": [_plain_order(o) for o in reply.orders if ours(o)],
        "unresolved": list(unresolved),
        "halts": _in_force(reply.halts, magics),
    }
    if unresolved and not mine:
        raise _Untold("UNRESOLVED", _unknown_fate(unresolved), **_told_or_left_out(beside))
    beside = _told_or_left_out(beside)
    if not question.command:
        return {**_uuid(question), "status": "ok", **beside, "timestamp": _iso(now)}
    if len({p.type for p in mine}) > 1:
        raise _Untold(
            "LONG_AND_SHORT",
            f"{len(mine)} positions in {question.symbol}, long and short, are not one; read `positions`",
            **beside,
        )
    return {**_uuid(question), "code": 200, "position": _as_one(mine), **beside}


def _told_or_left_out(answer: dict[str, Any]) -> dict[str, Any]:
    """While something is unresolved no list is sent empty: what is not known is not none."""
    if not answer["unresolved"]:
        return answer
    return {key: value for key, value in answer.items() if value or key not in ("positions", "orders")}


def _as_one(mine: list[Position]) -> dict[str, Any]:
    """Positions of one symbol and side as one: ticket of the oldest, volume and profit together, opened at
    the average price.
    """
    if not mine:
        return {}
    oldest = min(mine, key=lambda p: (p.time_msc, p.ticket))
    volume = math.fsum(p.volume for p in mine)
    return {
        **_plain_position(oldest),
        "volume": round(volume, 8),
        "open_price": round(math.fsum(p.price_open * p.volume for p in mine) / volume, 8),
        "profit": round(math.fsum(p.profit for p in mine), 8),
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
        "magic": p.magic,
    }


def _plain_order(o: Order) -> dict[str, Any]:
    """A working order; `volume` is what is not yet filled."""
    return {
        "ticket": o.ticket,
        "symbol": o.symbol,
        "type": o.type,
        "volume": o.volume_current,
        "volume_initial": o.volume_initial,
        "price_open": o.price_open,
        "sl": o.sl,
        "tp": o.tp,
        "time_setup": o.time_setup_msc // 1000,
        "magic": o.magic,
    }


def _in_force(halts: Sequence[HaltInfo], magics: frozenset[int]) -> list[dict[str, Any]]:
    """The halts that concern these magic numbers (none: any); magic 0 is the fleet's."""
    return [
        {"magic": halt.magic, "reason": halt.reason, "client": halt.client}
        for halt in halts
        if not magics or halt.magic in (0, *magics)
    ]


def _halted(halts: list[dict[str, Any]]) -> str:
    return "; ".join(f"order flow is halted by {halt['client']}: {halt['reason']}" for halt in halts)


def _unknown_fate(unresolved: Sequence[str]) -> str:
    shown = ", ".join(unresolved[:3]) + (" and others" if len(unresolved) > 3 else "")
    return (
        f"the fate of {shown} is not known, so there may be positions that do not show yet; ask again, or "
        "look at the broker and declare it (`mt5crs resolve`)"
    )


def _order(question: Question, reply: OrderResult, now: float, took_s: float) -> dict[str, Any]:
    if reply.outcome not in ("FILLED", "PARTIAL", "PLACED", "CANCELED"):
        _not_done(reply)
    about: dict[str, Any] = {"volume": reply.volume, "partial": reply.outcome == "PARTIAL"}
    if reply.volume_requested:  # a CLOSE of all of it names none
        about["volume_requested"] = reply.volume_requested
    if question.command:
        status = {"status": reply.outcome}
        return {**_uuid(question), "code": 200, "order_id": reply.order, **status, **about}
    answer = {
        **_uuid(question),
        # What is filled in part is filled: these clients take any other word for "nothing was executed".
        "status": "FILLED" if reply.outcome == "PARTIAL" else reply.outcome,
        "ticket": reply.position_ticket or reply.order,
        "execution_time": _iso(now),
        "latency_ms": round(took_s * 1000, 3),
    }
    if question.action == "CANCEL":
        return {**answer, "ticket": reply.order}
    if question.action == "CLOSE":
        return {**answer, "ticket": question.ticket, "close_price": reply.price, **about}
    return {**answer, "symbol": question.symbol, "price": reply.price, **about}


def _not_done(reply: OrderResult) -> NoReturn:
    code = reply.outcome if reply.outcome in ("UNRESOLVED", "DRY_RUN") else str(reply.retcode)
    raise _Untold(code, f"{reply.outcome}: {reply.message}")


def quote(tick: Tick) -> dict[str, Any]:
    """A quote with every key that subscribers read: `time` in milliseconds and `timestamp` in seconds, both
    of the broker's clock; `price` is the bid, as in a terminal's chart.
    """
    return {
        "type": "TICK",
        "symbol": tick.symbol,
        "bid": tick.bid,
        "ask": tick.ask,
        "price": tick.bid,
        "time": tick.time_msc,
        "timestamp": tick.time_msc / 1000,
    }


def _command_code(code: str) -> int:
    if code in ("BUSY", "UNRESOLVED"):
        return 504
    return 500 if code in ("INTERNAL", "BROKER", "NOT_READY", "LONG_AND_SHORT") else 400


def _iso(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).isoformat(timespec="milliseconds")
