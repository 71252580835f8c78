"""One number for "is the state equal?"."""

import hashlib
from collections.abc import Iterable

from .records import Order, Position


def state_digest(positions: Iterable[Position], orders: Iterable[Order], magic: int) -> str:
    """SHA-256 (hex) over positions and working orders of `magic`, whatever their order.

    Pure. Leaves out what moves with the market or is bookkeeping: current price, profit, swap, times, ticket
    (it changes on a netting reversal; the identifier does not), comment. Numbers are taken to 8 decimals.
    """
    lines = sorted(
        f"P {p.identifier} {p.symbol} {p.type} {p.volume:.8f} {p.price_open:.8f} {p.sl:.8f} {p.tp:.8f}"
        for p in positions
        if p.magic == magic
    )
    lines += sorted(
        f"O {o.ticket} {o.symbol} {o.type} {o.volume_initial:.8f} {o.volume_current:.8f} {o.price_open:.8f}"
        f" {o.sl:.8f} {o.tp:.8f}"
        for o in orders
        if o.magic == magic
    )
    return hashlib.sha256("\n".join([f"magic {magic}", *lines]).encode()).hexdigest()
