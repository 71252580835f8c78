"""Whether an Inf host may leave the fleet, from what was seen of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """What the broker and the gateway have of a magic number."""

    positions: tuple[int, ...]
    """Identifiers."""
    orders: tuple[int, ...]
    """Tickets of working orders."""
    unresolved: tuple[str, ...]
    """Client order ids of which nobody knows whether the broker has them."""

    def __str__(self) -> str:
        """For people: how many of each."""
        counts = ((self.positions, "open position"), (self.orders, "working order"))
        return ", ".join(f"{len(found)} {what}{'' if len(found) == 1 else 's'}" for found, what in counts)


@dataclass(frozen=True)
class Leaving:
    """The host that is to leave. What could not be found out is the reason as text, never nothing."""

    host: str
    gateway: str
    magic: int
    held: Held | str
    answers: str | None
    """None: the host answers; else why it does not."""
    deploying: str | None
    """Who deploys at this moment, or why that is not known; None: nobody."""
    successors: tuple[str, ...] = ()
    """Other hosts of the fleet that trade the magic number through the same gateway."""
    instances: tuple[str, ...] = ()
    """Further Inf of the fleet on the same machine, which is the host's."""


def refusals(of: Leaving, *, hand_over: str | None, lost: bool) -> Iterator[str]:
    """Why it may not leave now, a sentence with the remedy each; nothing: it may.

    hand_over: who looks after what stays open at the broker. lost: the host is gone for good.
    """
    if of.deploying is not None:
        yield f"{of.deploying}; wait for its end, then try again"
    if of.instances:
        yield f"others run on its machine: decommission {', '.join(of.instances)} first"
    if lost and of.answers is None:
        yield f"{of.host} answers, so it is not lost; leave --lost out"
    if not lost and of.answers is not None:
        yield (
            f"{of.host} does not answer ({of.answers}): start it, or say with --lost that it is gone for "
            "good; then nothing on it is stopped, fetched or removed, and its keys are revoked"
        )
    if isinstance(of.held, str):
        yield f"what {of.magic} holds is unknown: {of.gateway} says: {of.held}; mend that first"
    else:
        yield from of_books(of, of.held, hand_over=hand_over)


def of_books(of: Leaving, held: Held, *, hand_over: str | None) -> Iterator[str]:
    """The refusals for what is open at the broker: asked again once the host has stopped."""
    if held.unresolved:
        yield (
            f"{len(held.unresolved)} orders of {of.magic} are unresolved ({', '.join(held.unresolved[:3])}): "
            "find out what the broker did and say so with `mt5crs --inventory … resolve`"
        )
    if (held.positions or held.orders) and not of.successors and hand_over is None:
        yield (
            f"{of.magic} has {held}, and no other host trades it: close them (`halt --magic {of.magic}`, "
            f"`flatten --magic {of.magic}`), or name who looks after them with --hand-over NAME"
        )
