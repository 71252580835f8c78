"""The journal of a move, beside the inventory from before the first change until all is kept or restored.

Whoever finds one goes on or takes the move back; nothing of a move is known from anywhere else.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from deploy.fleet.restoring import write

Phase = Literal["begun", "described", "deployed", "verified", "undoing"]
"""The last that is done. `begun`: nothing but this file. `described`: inventory and known hosts say the new
address. `deployed`: hosts know it. `verified`: every link works. `undoing`: it is being taken back."""


class JournalError(RuntimeError):
    """The journal cannot be had; the text names cause and remedy."""


class Journal(msgspec.Struct, kw_only=True):
    """One move."""

    id: str
    inventory: str
    host: str
    old: str
    new: str
    who: str
    reason: str
    began: str
    phase: Phase = "begun"
    why_undone: str = ""
    known_hosts: str = ""
    """File of known hosts; empty: none is named."""
    added: list[str] = []
    """Lines that it gets."""
    peers: list[str] = []
    """Addresses to which the host has to send from its own."""
    held: list[str] = []
    """Checks of the go/no-go that passed before, and have to afterwards."""
    broker_msc: dict[str, int] = {}
    """Gateway → its broker's time before anything was deployed."""
    resumed: int = 0
    """How often another call went on with it."""
    steps: list[dict[str, Any]] = []
    """What was done: `what`, `seconds`, `outcome`."""

    def write(self) -> None:
        """Put it on the disk. OSError when that cannot be done."""
        write(path_of(Path(self.inventory)), msgspec.json.format(msgspec.json.encode(self)).decode() + "\n")

    def reached(self, phase: Phase) -> None:
        """Note a phase, on the disk before the next step."""
        self.phase = phase
        self.write()

    def remove(self) -> None:
        """All is kept or restored, and reported."""
        path_of(Path(self.inventory)).unlink(missing_ok=True)


def path_of(inventory: Path) -> Path:
    """Where the journal of a fleet's move is."""
    whole = inventory.resolve()
    return whole.with_name(f".{whole.stem}.migration.json")


def found(inventory: Path) -> Journal | None:
    """The move of this fleet that is not finished. JournalError when there is a journal that is none."""
    path = path_of(inventory)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise JournalError(
            f"{path} cannot be read ({error}), so a move of a host is in an unknown state: compare the "
            "inventory with git, deploy it, then remove the file"
        ) from None


@contextmanager
def held(inventory: Path) -> Iterator[None]:
    """No other process moves a host of an inventory in this directory meanwhile. JournalError if one does."""
    handle = os.open(inventory.resolve().parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                "another `migrate` is at work on an inventory in this directory; wait for its end"
            ) from None
        yield
    finally:
        os.close(handle)
