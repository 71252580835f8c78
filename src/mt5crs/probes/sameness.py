"""Do two observers of one broker hold the same state, though it moves? Pure: sightings and times in.

Both say up to which event of the gateway's stream their state goes. Digests are compared at the same event of
the same stream only; what one of them has seen later or earlier says nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import msgspec

from mt5crs.client.published import PublishedState
from mt5crs.protocol.records import Order, Position

_REMEMBERED = 1000
"""Sightings kept of each side; one comes with every trade event."""
_MAX_DIFFERENCES = 20

Key = tuple[str, int]
"""Stream and number of the last event that a state contains."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What one side said at one moment."""

    login: int
    magic: int
    key: Key
    digest: str
    """Empty while it does not know its state; then `reason` says why."""
    reason: str = ""
    numbered: bool = True
    """False when events have no numbers (a legacy gateway): what differs may just have been read earlier."""
    items: Mapping[str, str] | None = None
    """What the digest is made of: name of a position or order to its description; None when not told."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a comparison ended."""

    result: Literal["equal", "differ", "unknown"]
    reason: str
    digest_running: str = ""
    digest_standby: str = ""
    differences: tuple[str, ...] = ()


class Sameness:
    """Collects sightings of both sides. `outcome` is None until it is certain; `give_up` ends it anyway."""

    def __init__(self, *, hold_s: float = 1.0, settle_s: float = 3.0) -> None:
        """`hold_s`: so long no newer pair may differ after an equal one; `settle_s`: so long a pair that
        differs may still be followed by an equal one (a book can be read a moment before its events are out).
        """
        self._hold_s = hold_s
        self._settle_s = settle_s
        self._seen: tuple[OrderedDict[Key, Sighting], OrderedDict[Key, Sighting]] = (
            OrderedDict(),
            OrderedDict(),
        )
        self._last: list[Sighting | None] = [None, None]
        self._pair: tuple[Sighting, Sighting] | None = None
        self._equal_since: float | None = None
        self._differs_since: float | None = None

    def running(self, sighting: Sighting, at: float) -> None:
        """The running one said something, at `at` seconds."""
        self._take(0, sighting, at)

    def standby(self, sighting: Sighting, at: float) -> None:
        """The one that stands by said something."""
        self._take(1, sighting, at)

    def outcome(self, at: float) -> Outcome | None:
        """The verdict at `at` seconds, or None when it is too early."""
        strangers = self._strangers()
        if strangers:
            return Outcome(result="differ", reason="they look after different books", differences=strangers)
        if self._pair is None:
            return None
        running, standby = self._pair
        number = running.key[1]
        if self._equal_since is not None and at - self._equal_since >= self._hold_s:
            return Outcome(
                result="equal",
                reason=f"equal at event {number}",
                digest_running=running.digest,
                digest_standby=standby.digest,
            )
        differed_s = 0.0 if self._differs_since is None else at - self._differs_since
        if differed_s >= self._settle_s and running.numbered and standby.numbered:
            return Outcome(
                result="differ",
                reason=f"the states at event {number} differ",
                digest_running=running.digest,
                digest_standby=standby.digest,
                differences=_differences(running, standby),
            )
        return None

    def give_up(self, seconds: float) -> Outcome:
        """The verdict when time is up: who does not know its state, or why the two never met."""
        running, standby = self._last
        for name, sighting in (("running", running), ("standby", standby)):
            if sighting is None or not sighting.digest:
                why = (
                    "has said nothing" if sighting is None else f"does not know its state: {sighting.reason}"
                )
                return Outcome(result="unknown", reason=f"after {seconds:g} s the {name} one {why}")
        if running is not None and standby is not None and running.key[0] != standby.key[0]:
            streams = f"event stream of the running one {running.key[0]}, of the standby one {standby.key[0]}"
            return Outcome(result="differ", reason="they follow different gateways", differences=(streams,))
        if self._pair is not None and self._differs_since is not None:
            numbered = self._pair[0].numbered and self._pair[1].numbered
            why = "not for long enough to be sure"
            if not numbered:
                why = "this gateway does not number its events, so one may just have been read earlier"
            return Outcome(
                result="unknown",
                reason=f"after {seconds:g} s the states differ, but {why}",
                differences=_differences(*self._pair),
            )
        return Outcome(
            result="unknown",
            reason=f"within {seconds:g} s the two were never seen at the same event; "
            "the state changes faster than they can be compared",
        )

    def _take(self, side: int, sighting: Sighting, at: float) -> None:
        self._last[side] = sighting
        if not sighting.digest:
            return
        seen = self._seen[side]
        seen.pop(sighting.key, None)
        seen[sighting.key] = sighting
        while len(seen) > _REMEMBERED:
            seen.popitem(last=False)
        other = self._seen[1 - side].get(sighting.key)
        if other is None:
            return
        pair = (sighting, other) if side == 0 else (other, sighting)
        if (
            self._pair is not None
            and pair[0].key[0] == self._pair[0].key[0]
            and pair[0].key < self._pair[0].key
        ):
            return  # an earlier event: a newer pair has been compared already
        self._pair = pair
        if pair[0].digest == pair[1].digest:
            self._differs_since = None
            if self._equal_since is None:
                self._equal_since = at
        else:
            self._equal_since = None
            if self._differs_since is None:
                self._differs_since = at

    def _strangers(self) -> tuple[str, ...]:
        running, standby = self._last
        if running is None or standby is None:
            return ()
        pairs = (("account", running.login, standby.login), ("magic number", running.magic, standby.magic))
        return tuple(
            f"{what}: the running one has {ours}, the standby one {theirs}"
            for what, ours, theirs in pairs
            if ours != theirs
        )


def sighting_of(state: PublishedState) -> Sighting:
    """What a reconciler publishes, as a sighting. Only a settled state counts."""
    settled = state.state in ("ready", "shadow")
    return Sighting(
        login=state.login,
        magic=state.magic,
        key=(state.stream, state.seq),
        digest=state.digest if settled else "",
        reason=f"{state.state}: {state.reason}".rstrip(": "),
        numbered=state.state != "shadow",
        items=_items(state.positions or (), state.orders or ()),
    )


def sighting_of_health(health: Mapping[str, object]) -> Sighting:
    """What a strategy's /health says of the state it goes by, as a sighting."""
    if "digest" not in health:
        return Sighting(
            login=0,
            magic=0,
            key=("", 0),
            digest="",
            reason="it is of a release that does not publish its digest; deploy once without blue_green",
        )
    return Sighting(
        login=int(str(health["login"])),
        magic=int(str(health["magic"])),
        key=(str(health["stream"]), int(str(health["seq"]))),
        digest=str(health["digest"]),
        reason=str(health.get("reason") or health.get("state")),
    )


def _items(positions: tuple[Position, ...], orders: tuple[Order, ...]) -> dict[str, str]:
    """What the digest is made of (see `state_digest`), by name."""
    items = {
        f"position {p.identifier}": f"{p.type} {p.volume:g} {p.symbol} at {p.price_open:g} "
        f"sl {p.sl:g} tp {p.tp:g}"
        for p in positions
    }
    items |= {
        f"order {o.ticket}": f"{o.type} {o.volume_current:g} of {o.volume_initial:g} {o.symbol} "
        f"at {o.price_open:g} sl {o.sl:g} tp {o.tp:g}"
        for o in orders
    }
    return items


def _differences(running: Sighting, standby: Sighting) -> tuple[str, ...]:
    ours, theirs = running.items, standby.items
    if ours is None or theirs is None:
        return ()
    found = [f"the running one holds {len(ours)} positions and orders, the standby one {len(theirs)}"]
    for name in sorted({*ours, *theirs}):
        if name not in theirs:
            found.append(f"{name} ({ours[name]}) is held by the running one only")
        elif name not in ours:
            found.append(f"{name} ({theirs[name]}) is held by the standby one only")
        elif ours[name] != theirs[name]:
            found.append(f"{name}: running {ours[name]}, standby {theirs[name]}")
    more = len(found) - _MAX_DIFFERENCES
    return (*found[:_MAX_DIFFERENCES], f"and {more} more") if more > 0 else tuple(found)
