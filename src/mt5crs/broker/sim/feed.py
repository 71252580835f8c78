"""Quotes: a random walk that is a pure function of seed, symbol and time.

The walk is a sum of random hats on ever finer intervals (Lévy's construction of Brownian motion), so any
moment can be asked for directly: no state to keep, the same prices after every restart.
"""

import hashlib
import math
from functools import lru_cache

from mt5crs.protocol.records import Tick

from .symbols import Contract

STEP_MS = 250
"""A new quote this often."""

_DAY_STEPS = 24 * 3600 * 1000 // STEP_MS
_TOP = 1 << 21
"""Steps in the longest interval (about six days); beyond it the walk returns to its start price."""


@lru_cache(maxsize=4096)
def _normal(seed: int, name: str, level: int, index: int) -> float:
    """A standard normal number that depends on nothing but its arguments (Box-Muller over SHA-256)."""
    raw = hashlib.sha256(f"{seed}/{name}/{level}/{index}".encode()).digest()
    first = (int.from_bytes(raw[:8], "big") + 1) / (2**64 + 1)
    second = int.from_bytes(raw[8:16], "big") / 2**64
    return math.sqrt(-2 * math.log(first)) * math.cos(2 * math.pi * second)


def _walk(seed: int, name: str, step: int) -> float:
    """Height of the bridge at a step, in square roots of steps."""
    total, length, level = 0.0, _TOP, 0
    while length > 1:
        index, offset = divmod(step, length)
        hat = 1.0 - abs(2.0 * offset / length - 1.0)
        if hat:
            total += hat * math.sqrt(length) / 2.0 * _normal(seed, name, level, index)
        length //= 2
        level += 1
    return total


def quote(contract: Contract, seed: int, time_msc: int) -> Tick:
    """The quote of a contract at a broker time. Pure."""
    step = time_msc // STEP_MS
    swing = contract.volatility * _walk(seed, contract.name, step) / math.sqrt(_DAY_STEPS)
    mid = contract.start_price * math.exp(swing)
    bid = round(mid - contract.spread_points * contract.point / 2, contract.digits)
    ask = round(bid + contract.spread_points * contract.point, contract.digits)
    return Tick(symbol=contract.name, bid=bid, ask=ask, time_msc=step * STEP_MS)
