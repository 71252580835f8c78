"""Text of others (hosts, brokers, clients) made safe to show: it steers no terminal and no page.

What steers a terminal (escape sequences, also those of one character), turns the direction of writing, is not
to be seen at all, or is no character (half of a surrogate pair) is shown as its escape, such as `\\x1b`.
"""

from __future__ import annotations

import re
from typing import Any, TextIO

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def shown(text: str, *, lines: bool = False) -> str:
    """The text with everything unprintable as an escape; `lines` keeps the ends of lines."""
    if text.isprintable():
        return text
    kept = "\n\t" if lines else "\t"
    return "".join(each if each.isprintable() or each in kept else _escaped(each) for each in text)


def _escaped(each: str) -> str:
    return each.encode("unicode_escape").decode("ascii")


def shown_tree(value: Any) -> Any:
    """A value as JSON has them, with every text in it, keys too, as `shown` makes it (lines are kept)."""
    if isinstance(value, str):
        return shown(value, lines=True)
    if isinstance(value, dict):
        return {shown_tree(key): shown_tree(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown_tree(each) for each in value]
    return value


class SafeStream:
    """A stream to a terminal that lets colours through, and shows every other control character."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        if not text.isprintable():
            parts = _COLOUR.split(text)
            parts[::2] = [shown(part.replace("\r\n", "\n"), lines=True) for part in parts[::2]]
            text = "".join(parts)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def safe(stream: TextIO) -> TextIO:
    """A stream that is safe to write foreign text to; one that is already stays as it is."""
    return stream if isinstance(stream, SafeStream) else SafeStream(stream)  # type: ignore[return-value]
