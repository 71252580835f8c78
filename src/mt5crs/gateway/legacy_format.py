"""What existing clients say, as our own requests. Pure. docs/existing-clients.md has the dialects:
`{"action": "SYNC_ALL", …}`, `{"uuid", "action", …}` and `{"command", …}`.
"""

import datetime
import hashlib
import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import VERSION, Filling, Symbol, Ticket
from mt5crs.protocol.plain_json import PlainJsonError, read_object

from .symbol_sync import SymbolSync

SIGNATURE_LIFE_S = 5.0
_VALID_MS = 5000
_NO_EPOCH = 1
"""Stands in trades until the adapter has taken their lease."""
_NO_FILLING: Filling = "IOC"
"""Stands in market orders until it is known what the symbol offers. It is part of their fingerprint: what
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
    expected_profit: _Finite | None = None


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
    expected_profit: _Finite | None = None


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
        expected_profit=question.expected_profit,
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
        expected_profit=order.expected_profit,
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
