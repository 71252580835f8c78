"""Signatures of what is posted to others, as https://www.standardwebhooks.com has them. Pure.

A receiver in any language checks them with a library that exists, and this needs none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
_LEAST_BYTES = 24


class SecretError(ValueError):
    """No secret that can sign; the text says what one looks like, and nothing of this one."""


def keys(secret: str) -> list[bytes]:
    """The keys of a setting: one secret, or the new and the former one with a blank between. SecretError."""
    words = secret.split(" ")
    if not 1 <= len(words) <= 2:
        raise SecretError("expected one secret, or two with one blank between")
    return [_key(word) for word in words]


def headers(of: str, at: int, body: bytes, signing: Sequence[bytes]) -> dict[str, str]:
    """The headers of a post. of: its id, which stays the same when it is tried again; at: Unix time, now."""
    signed = f"{of}.{at}.".encode() + body
    made = (hmac.new(key, signed, hashlib.sha256).digest() for key in signing)
    return {
        "webhook-id": of,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(each).decode()}" for each in made),
    }


def _key(word: str) -> bytes:
    told = f"expected {PREFIX} and at least {_LEAST_BYTES} bytes in base64"
    try:
        key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SecretError(told) from None
    if not word.startswith(PREFIX) or len(key) < _LEAST_BYTES:
        raise SecretError(told)
    return key
