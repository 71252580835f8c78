"""Degraded mode: magic numbers go on, and may only close, cancel and reduce."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.chosen import Target
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.operate.gateways import ask
from mt5crs.protocol import replies, requests


class Reduced(Struct, frozen=True):
    """A magic number at its gateway. error: why it may go on as before; already: it only reduced before."""

    gateway: str
    magic: int
    error: str = ""
    already: bool = False

    def __str__(self) -> str:
        if self.error:
            return f"{self.gateway}: {self.magic} is not reduced, {self.error}; it may trade as before"
        return f"{self.gateway}: {self.magic} {'only reduced already' if self.already else 'may only reduce'}"


def reduce(of: Sequence[Target], magic: int | None, reason: str) -> list[Reduced]:
    """Let a magic number only reduce; None: all that are traded there."""
    found = []
    for target in of:
        for each in sorted(target.magics or ()):
            if magic in (None, each):
                found.append(_one(target, each, reason))
    return found


def way_back(magics: Sequence[int]) -> str:
    """How it is lifted, by a person."""
    how = "; ".join(f"mt5crs … phase activate --magic {magic} --reason …" for magic in magics)
    return f"until it is lifted, {', '.join(map(str, magics))} may only reduce: {how}"


def _one(target: Target, magic: int, reason: str) -> Reduced:
    def call(client: GatewayClient, _connection: ConnectionSettings) -> bool:
        before = client.call(requests.PhaseQuery, replies.PhaseState, magic=magic)
        client.call(requests.PhaseTrading, replies.PhaseState, magic=magic, state="REDUCING", reason=reason)
        return before.trading == "REDUCING"

    (answer,) = ask([target], call)
    return Reduced(target.name, magic, answer.error, bool(answer.value))
