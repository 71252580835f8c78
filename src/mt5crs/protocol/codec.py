"""Bytes to messages and back, strictly."""

import re
from typing import TypeVar

import msgspec

from .events import AnyEvent, Event
from .fields import MAX_REPLY_BYTES, MAX_REQUEST_BYTES, VERSION, ErrorCode
from .replies import AnyReply, Reply
from .requests import AnyRequest, Request

PLAIN_PING = b"PING"
PLAIN_PONG = b"PONG:"

_encoder = msgspec.msgpack.Encoder()
_request_decoder: "msgspec.msgpack.Decoder[AnyRequest]" = msgspec.msgpack.Decoder(AnyRequest)
_reply_decoder: "msgspec.msgpack.Decoder[AnyReply]" = msgspec.msgpack.Decoder(AnyReply)
_event_decoder: "msgspec.msgpack.Decoder[AnyEvent]" = msgspec.msgpack.Decoder(AnyEvent)
_FIELD = re.compile(r"`([^`]+)`")
_PATH = re.compile(r"at `(?:\$|key)\.?([^`]*)`$")
_T = TypeVar("_T")


class ProtocolError(ValueError):
    """A frame that is not a valid message: `code` and `field` as in an ERROR reply, `request_id` if it could
    be read.
    """

    def __init__(self, code: ErrorCode, field: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{code} {field}: {message}" if field else f"{code}: {message}")
        self.code: ErrorCode = code
        self.field = field
        self.message = message
        self.request_id = request_id


def encode(message: Request | Reply | Event) -> bytes:
    """Message to one frame."""
    return _encoder.encode(message)


def decode_request(frame: bytes) -> AnyRequest:
    """Frame to request. Raises ProtocolError with the field at fault."""
    request = _decode(frame, _request_decoder, MAX_REQUEST_BYTES)
    if request.v != VERSION:
        raise ProtocolError(
            "BAD_VERSION", "v", f"protocol version {request.v} is not spoken here, only {VERSION}", request.id
        )
    return request


def decode_reply(frame: bytes) -> AnyReply:
    """Frame to reply. Raises ProtocolError with the field at fault."""
    return _decode(frame, _reply_decoder, MAX_REPLY_BYTES)


def decode_event(frame: bytes) -> AnyEvent:
    """Frame to event. Raises ProtocolError with the field at fault."""
    return _decode(frame, _event_decoder, MAX_REPLY_BYTES)


def _decode(frame: bytes, decoder: "msgspec.msgpack.Decoder[_T]", limit: int) -> _T:
    if len(frame) > limit:
        raise ProtocolError("TOO_LARGE", "", f"frame of {len(frame)} bytes; the limit is {limit}")
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        raise _explain(frame, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise ProtocolError("BAD_MESSAGE", "", f"not a msgpack message: {_bounded(str(error))}") from None


def _explain(frame: bytes, text: str) -> ProtocolError:
    """Why a well-formed msgpack value is no message of this version."""
    head = _head(frame)
    request_id, version = head.get("id"), head.get("v")
    shown = request_id if isinstance(request_id, str) and len(request_id) <= 64 else ""
    if "kind" not in head or not isinstance(head.get("kind"), str):
        return ProtocolError("BAD_MESSAGE", "kind", "the message is not a map with a text `kind`", shown)
    if isinstance(version, int) and version != VERSION:
        return ProtocolError(
            "BAD_VERSION", "v", f"protocol version {version} is not spoken here, only {VERSION}", shown
        )
    if text.startswith("Invalid value") and text.endswith("`$.kind`"):
        return ProtocolError("UNKNOWN_KIND", "kind", _bounded(text), shown)
    return ProtocolError("BAD_FIELD", _field_of(text), _bounded(text), shown)


def _head(frame: bytes) -> dict[str, object]:
    try:
        value = msgspec.msgpack.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return {}
    return (
        {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}
    )


def _field_of(text: str) -> str:
    path = _PATH.search(text)
    if path and path.group(1):
        return path.group(1)[:128]
    named = _FIELD.search(text)
    return named.group(1)[:128] if named and "field" in text else ""


def _bounded(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."
