"""Strict reading of JSON that others write (plain clients and gateways, people): one meaning or none."""

import json
from typing import Any

import msgspec


class PlainJsonError(ValueError):
    """A text that is no JSON object, or one that can be read in two ways."""

    found: dict[str, Any]
    """What it holds all the same, to tell whose message it was; nothing may be done by it."""

    def __init__(self, why: str, found: object = None) -> None:
        super().__init__(why)
        self.found = found if isinstance(found, dict) else {}


def read_object(text: bytes) -> dict[str, Any]:
    """The object in a text. Raises PlainJsonError.

    Refused as well: a key that comes twice (programs differ in which one they take), numbers out of range,
    broken Unicode, and nesting deeper than any message has.
    """
    try:
        found = msgspec.json.decode(text)
    except RecursionError:
        raise PlainJsonError("the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlainJsonError(str(error)[:200]) from None
    if not isinstance(found, dict):
        raise PlainJsonError(f"the JSON is no object but {type(found).__name__}")
    try:
        json.loads(text, object_pairs_hook=_once)
    except PlainJsonError as error:
        raise PlainJsonError(str(error), found) from None
    except (ValueError, RecursionError) as error:
        raise PlainJsonError(str(error)[:200], found) from None
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise PlainJsonError(f"key {key[:40]!r} comes twice")
        found[key] = value
    return found
