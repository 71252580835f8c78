"""What gateway and terminal process say to each other: one question, one answer, over a pipe each way.

A frame is a header (length of the body, number of the call, kind of question or status of the answer) and a
body in MessagePack. The gateway checks the types of what it reads, and none of the protocol's bounds: those
are for what clients ask, the broker's books hold what they hold.
"""

from __future__ import annotations

import functools
import operator
import os
import struct
import types
import typing
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mt5crs.protocol.fields import MAX_REPLY_BYTES
from mt5crs.protocol.records import Account, Deal, Identity, Order, Position, Tick

from .interface import BrokerError, Calculation, CheckOutcome, TradedSymbol, TradeRequest, TradeResult

VERSION = 4
"""Both sides must speak the same; they are parts of one release, but of two installations under Wine."""
MAX_BODY_BYTES = MAX_REPLY_BYTES
_HEADER = struct.Struct("<IIB")
_AT_ONCE = 1 << 16
"""Bytes read at once: what a pipe holds."""


class Kind(IntEnum):
    """What is asked."""

    OPEN = 1
    START = 2
    TIME = 3
    IDENTITY = 4
    BOOKS = 5
    DEALS = 6
    CLOSED_ORDERS = 7
    DEALS_OF_POSITION = 8
    SYMBOL = 9
    TICK = 10
    CHECK = 11
    SEND = 12
    CALCULATE = 13


class Status(IntEnum):
    """How it went."""

    DONE = 0
    FAILED = 1


_STATUSES = frozenset(Status)


class Opening(Struct, frozen=True, kw_only=True):
    """The first question: which broker, and how. It may hold a password, which is why it comes by the pipe.

    `state_dir` is the directory of which only one terminal process at a time may be in charge.
    """

    version: int
    state_dir: str
    backend: Literal["sim", "mt5"]
    configuration: msgspec.Raw


class Change(Struct, frozen=True, kw_only=True):
    """Books; None for a list that equals the one sent last."""

    time_msc: int
    identity: Identity
    account: Account
    positions: list[Position] | None
    orders: list[Order] | None
    version: int | None
    elapsed_s: float
    """Of the terminal process, just before it answered: under Wine its clock is not the gateway's."""


class Failure(Struct, frozen=True, kw_only=True):
    """Why there is no answer. `error`: class of the BrokerError, or of the exception of the package."""

    error: str
    code: int
    message: str

    def raised(self) -> BrokerError:
        """The error to raise at the gateway."""
        kinds = {kind.__name__: kind for kind in BrokerError.__subclasses__()}
        return kinds.get(self.error, BrokerError)(self.code, self.message)


_ANSWERS: dict[Kind, Any] = {
    Kind.OPEN: None,
    Kind.START: None,
    Kind.TIME: int,
    Kind.IDENTITY: Identity,
    Kind.BOOKS: Change,
    Kind.DEALS: list[Deal],
    Kind.CLOSED_ORDERS: list[Order],
    Kind.DEALS_OF_POSITION: list[Deal],
    Kind.SYMBOL: TradedSymbol | None,
    Kind.TICK: Tick | None,
    Kind.CHECK: CheckOutcome,
    Kind.SEND: TradeResult | None,
    Kind.CALCULATE: float,
}
_QUESTIONS: dict[Kind, Any] = {
    Kind.OPEN: Opening,
    Kind.BOOKS: bool,  # whether both lists are wanted, equal or not
    Kind.DEALS: int,
    Kind.CLOSED_ORDERS: int,
    Kind.DEALS_OF_POSITION: int,
    Kind.SYMBOL: str,
    Kind.TICK: str,
    Kind.CHECK: TradeRequest,
    Kind.SEND: TradeRequest,
    Kind.CALCULATE: Calculation,
}


class PipeError(Exception):
    """The other side has gone, or what it wrote is no frame."""


class PipeEndedError(PipeError):
    """The other side has closed its end, perhaps in the middle of a frame."""


class GarbageError(PipeError):
    """What was read is not what the other side of this program writes."""


class Pipes:
    """Both pipes of one side. Used by one thread."""

    def __init__(
        self,
        incoming: int,
        outgoing: int,
        *,
        read: Callable[[int, int], bytes] = os.read,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        """Descriptors to read from and to write to."""
        self._incoming, self._outgoing = incoming, outgoing
        self._read, self._write = read, write

    def put(self, number: int, tag: int, body: bytes) -> None:
        """Write a frame. Raises OSError when nobody reads any more."""
        left: bytes | memoryview = _HEADER.pack(len(body), number, tag) + body
        while left:
            left = memoryview(left)[self._write(self._outgoing, left) :]  # type: ignore[arg-type]

    def take(self, expected: int | None = None) -> tuple[int, int, memoryview]:
        """Read a frame: number, tag, body. `expected`: it must be the answer to the question of that number.

        Raises PipeError, OSError.
        """
        data = self._more()
        while len(data) < _HEADER.size:
            data += self._more()
        length, number, tag = _HEADER.unpack_from(data)
        if length > MAX_BODY_BYTES or (expected is not None and (number != expected or tag not in _STATUSES)):
            raise GarbageError(f"a header of {length} bytes, number {number}, tag {tag}")
        whole = _HEADER.size + length
        if len(data) < whole:
            parts, have = [data], len(data)
            while have < whole:
                parts.append(self._more())
                have += len(parts[-1])
            data = b"".join(parts)
        if len(data) > whole:
            raise GarbageError("more was written than was asked for")
        return number, tag, memoryview(data)[_HEADER.size :]

    def _more(self) -> bytes:
        data = self._read(self._incoming, _AT_ONCE)
        if not data:
            raise PipeEndedError("the pipe has ended")
        return data


_encoder = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """MessagePack of a question or an answer; characters that no text may hold are replaced.

    (The package hands out halves of UTF-16 pairs where a comment was cut or broken.)
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_legible(msgspec.to_builtins(value)))


def _legible(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _legible(each) for key, each in value.items()}
    return [_legible(each) for each in value] if isinstance(value, list) else value


@functools.cache
def _decoder(annotation: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(_bare(annotation))


def question(kind: Kind, body: memoryview) -> Any:
    """The argument of a question. Raises msgspec.DecodeError."""
    return _decoder(_QUESTIONS.get(kind)).decode(body)


def answer(kind: Kind, body: memoryview) -> Any:
    """The answer to a question. Raises msgspec.DecodeError."""
    return _decoder(_ANSWERS[kind]).decode(body)


def failure(body: memoryview) -> Failure:
    """Why there is no answer. Raises msgspec.DecodeError."""
    failed: Failure = _decoder(Failure).decode(body)
    return failed


@functools.cache
def _bare(annotation: Any) -> Any:
    """A type without bounds; a record becomes a subclass of it whose fields have none."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_bare, arguments))
    if origin is list:
        return list[_bare(arguments[0])]  # type: ignore[misc]
    if not (isinstance(annotation, type) and issubclass(annotation, Struct)):
        return annotation
    hints = typing.get_type_hints(annotation)  # which leaves the bounds out
    given = {field.name: field for field in msgspec.structs.fields(annotation)}
    fields: list[Any] = [
        (name, _bare(hint)) if given[name].required else (name, _bare(hint), given[name].default)
        for name, hint in hints.items()
    ]
    return msgspec.defstruct(
        annotation.__name__, fields, bases=(annotation,), frozen=True, kw_only=True, module=__name__
    )
