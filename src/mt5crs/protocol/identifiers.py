"""Names derived from other names, the same on both sides of the wire."""

import base64
import hashlib
import re

COMMENT_ID_LENGTH = 26
"""Some brokers keep only this many characters of an order's comment (MetaTrader 5 allows 31)."""

_COMMENT_ID = re.compile(r"c-[a-z2-7]{24}")


def is_comment_id(comment: str) -> bool:
    """Whether a comment has the form of one that `comment_id` makes."""
    return _COMMENT_ID.fullmatch(comment) is not None


def comment_id(magic: int, client_order_id: str) -> str:
    """The order comment by which a client order id is found again in the broker's books (120 bits of
    SHA-256).
    """
    digest = hashlib.sha256(f"{magic}/{client_order_id}".encode()).digest()
    return "c-" + base64.b32encode(digest[:15]).decode().lower()
