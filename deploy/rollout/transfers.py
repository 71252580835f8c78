"""How bundles came to the hosts of a run: how many bytes, from where, and why not from the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mt5crs.foreign_text import shown

CONTROLLER = "controller"
_MB = 1000 * 1000


@dataclass(frozen=True)
class Transfer:
    """One bundle that came to one host; `bytes` are those that went over the line for it.

    `source`: CONTROLLER, or the name of the Hub. `to_store`: it went to the Hub's release store, not to the
    bundles of a host. `why`: why it did not come from the Hub, where it could have; empty otherwise.
    """

    host: str
    bundle: str
    source: str
    bytes: int
    seconds: float
    resumed_at: int = 0
    to_store: bool = False
    why: str = ""

    def __post_init__(self) -> None:
        """Hosts have a say in the reason."""
        object.__setattr__(self, "why", shown(self.why))


def megabytes(count: int) -> str:
    """`12.3 MB`."""
    return f"{count / _MB:.1f} MB"


def summary(transfers: Iterable[Transfer]) -> list[str]:
    """What came from where, in lines for people; empty when nothing had to come."""
    known = list(transfers)
    stored = [one for one in known if one.to_store]
    fetched = [one for one in known if one.source != CONTROLLER]
    lines = []
    for hub in dict.fromkeys([one.host for one in stored] + [one.source for one in fetched]):
        sent = sum(one.bytes for one in stored if one.host == hub)
        own = [one for one in fetched if one.source == hub]
        came = sum(one.bytes for one in own)
        hosts = len({one.host for one in own})
        took = max((one.seconds for one in own), default=0.0)
        uploaded = f"{megabytes(sent)} uploaded once to {hub}" if sent else f"{hub} had all of it already"
        lines.append(
            f"bundles: {uploaded}; {hosts} host{'s' if hosts != 1 else ''} got it from there, "
            f"{megabytes(came)} in {took:.1f} s"
        )
    direct = [one for one in known if one.source == CONTROLLER and not one.to_store]
    for why in dict.fromkeys(one.why for one in direct):
        own = [one for one in direct if one.why == why]
        hosts_named = ", ".join(dict.fromkeys(one.host for one in own))
        sent = sum(one.bytes for one in own)
        lines.append(f"bundles: {megabytes(sent)} directly to {hosts_named}{f': {why}' if why else ''}")
    return lines
