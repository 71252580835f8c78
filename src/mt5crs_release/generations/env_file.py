"""What a generation's ``.env`` files say, as written: quotes included."""

from __future__ import annotations


def settings(text: str) -> dict[str, str]:
    """Return the value of each key in the text of an ``.env`` file."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value for key, sign, value in pairs if sign and not key.lstrip().startswith("#")}
