"""Names derived from other names, the same on both sides of the wire."""

import base64
import hashlib

COMMENT_ID_LENGTH = 26
"""Some brokers keep only this many characters of an order's comment (MetaTrader 5 allows 31)."""


def comment_id(magic: int, client_order_id: str) -> str:
    """The order comment by which a client order id is found again in the broker's books (120 bits of
    SHA-256).
    """
    digest = hashlib.sha256(f"{magic}/{client_order_id}".encode()).digest()
    return "c-" + base64.b32encode(digest[:15]).decode().lower()
