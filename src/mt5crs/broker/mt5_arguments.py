"""What the MetaTrader5 package takes as arguments; the rest is refused in our words before the call. Pure.

It answers None and -2 to most of what it does not take, raises SystemError for an integer out of range, and
takes without a word what cannot be meant: NaN for a price, half a character, a key that it does not know.
Tried with version 5.0.6231 (`make windows-contract`).
"""

from __future__ import annotations

import math
from typing import Any

_UNSIGNED, _UNSIGNED_LONG, _LONG = (0, 2**32 - 1), (0, 2**64 - 1), (-(2**63), 2**63 - 1)
_INTEGERS = {
    "action": _UNSIGNED,
    "magic": _UNSIGNED_LONG,
    "order": _UNSIGNED_LONG,
    "position": _UNSIGNED_LONG,
    "position_by": _UNSIGNED_LONG,
    "deviation": _UNSIGNED_LONG,
    "type": _UNSIGNED,
    "type_filling": _UNSIGNED,
    "type_time": _UNSIGNED,
    "expiration": _LONG,
    "login": _UNSIGNED_LONG,
    "timeout": _UNSIGNED,
}
_FLOATS = frozenset({"volume", "price", "stoplimit", "sl", "tp"})
_TEXTS = {"symbol": 29, "comment": 29, "path": 259, "password": None, "server": None}
"""Longest text in UTF-16 units; None: no bound was found."""


class ArgumentError(ValueError):
    """The package would refuse or misread an argument. The text names it, and never holds its value."""


def checked(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, or keys of a request, as the package takes them. Raises ArgumentError."""
    return {name: _checked(name, value) for name, value in arguments.items()}


def checked_symbol(name: str) -> str:
    """A symbol that can be asked for. Raises ArgumentError."""
    return _text("symbol", name)


def _checked(name: str, value: Any) -> Any:
    if name in _INTEGERS:
        return _integer(name, value)
    if name in _FLOATS:
        return _float(name, value)
    if name in _TEXTS:
        return _text(name, value)
    if name == "portable":
        return bool(value)
    raise ArgumentError(f"{name} is nothing that the MetaTrader5 package knows; it would be left out")


def _integer(name: str, value: Any) -> int:
    low, high = _INTEGERS[name]
    if not isinstance(value, int):
        raise ArgumentError(f"{name} is a {type(value).__name__}, not an integer")
    if not low <= value <= high:
        raise ArgumentError(f"{name} is outside {low} to {high}")
    return int(value)


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentError(f"{name} is a {type(value).__name__}, not a number")
    if not math.isfinite(value):
        raise ArgumentError(f"{name} is {value}, not a finite number")
    return float(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentError(f"{name} is a {type(value).__name__}, not a text")
    try:
        units = len(value.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise ArgumentError(f"{name} holds half of a character (a lone surrogate)") from None
    longest = _TEXTS[name]
    if longest is not None and units > longest:
        raise ArgumentError(f"{name} has {units} characters; the MetaTrader5 package takes at most {longest}")
    if "\0" in value:
        raise ArgumentError(f"{name} holds a NUL, at which Windows ends a text")
    return value
