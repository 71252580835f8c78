"""Whether another machine may take a gateway's place, from what was seen of both. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Seen:
    """What was looked at before. What could not be found out is the reason as text, never nothing."""

    former: str
    new: str
    address: str
    not_former: str | None
    """None: the former machine answers over SSH; else why it does not."""
    ports: Mapping[str, bool | str] = field(default_factory=dict)
    """Who asked → whether anything answers at the former gateway's port, or why that is not known."""
    not_new: str | None = None
    """None: the new machine answers over SSH; else why it does not."""
    occupied: str = ""
    """What of a gateway is on the new machine already; empty: nothing."""
    backup: str | None = None
    """The backup that has a copy of the former; None: there is none, or none is wanted."""
    not_backup: str = ""
    """Why there is no backup."""
    deploying: str | None = None
    """Who deploys at this moment, or why that is not known; None: nobody."""
    own_files: Sequence[str] = ()
    """Variables of the former alone that the new has no counterpart of."""


def refusals(seen: Seen, *, lost: bool, without_backup: bool) -> Iterator[str]:
    """Why it may not be replaced now, a sentence with the remedy each; nothing: it may.

    lost: somebody says that the former machine is gone for good. without_backup: its state is given up.
    """
    if seen.deploying is not None:
        yield f"{seen.deploying}; wait for its end, then try again"
    for file in seen.own_files:
        yield (
            f"{file} has variables of {seen.former} alone: copy it for {seen.new} and look through it, then "
            "call this again"
        )
    if seen.not_new is not None:
        yield (
            f"{seen.new} does not answer at {seen.address} ({seen.not_new}): start it, let the controller's "
            "key in, and put its host key into the file of known hosts"
        )
    if seen.occupied:
        yield f"{seen.new} has a gateway already ({seen.occupied}): take a machine that has none"
    yield from _of_former(seen, lost=lost)
    if lost and seen.backup is None and not without_backup:
        yield (
            f"no backup has a copy of {seen.former} ({seen.not_backup}): say --no-backup, then the broker's "
            "books alone decide what was sent, and halts and phases of before are not known"
        )


def _of_former(seen: Seen, *, lost: bool) -> Iterator[str]:
    """One account, one gateway: the former has to be down as far as anybody can see."""
    if not lost:
        if seen.not_former is not None:
            yield (
                f"{seen.former} does not answer ({seen.not_former}): start it, so that it is stopped and its "
                "newest state taken along, or say with --lost that its machine is off for good"
            )
        return
    if seen.not_former is None:
        yield f"{seen.former} answers, so it is not lost; leave --lost out: it is stopped and its state taken"
    for who, answer in seen.ports.items():
        if answer is True:
            yield (
                f"something answers {who} at the port of {seen.former}: its gateway may live and has the "
                "account; switch its machine off first"
            )
        elif isinstance(answer, str):
            yield f"whether {seen.former} still answers {who} is not known ({answer}); mend that first"
