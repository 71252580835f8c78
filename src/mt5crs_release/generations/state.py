"""``state.json`` of a service: which generations exist and what is going on with them.

The file is replaced in one step. The order of writes makes it the truth: an intention is written
before the first change it covers, an end after the last.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mt5crs_release.errors import FailedError
from mt5crs_release.generations import machine
from mt5crs_release.storage import store

FORMAT = 1


@dataclass
class Generation:
    """What is recorded of a generation besides its directory."""

    name: str
    digest: str
    state: str
    bundle: str | None
    version: str | None
    runtime: str | None
    state_format: int
    staged_at: str
    confirmed_at: str | None = None
    """When it was first confirmed; only such a one can be rolled back to, and it never is ``failed``."""
    left_because: str | None = None
    """Why its last attempt came to nothing, in one sentence; ``None``: it did not."""
    deployment: str | None = None
    """Id of the deployment that activated it last; a rollback is none."""
    deployed_at: str | None = None
    """When that was."""
    extra: str | None = None
    """Content of the second bundle, if it has one."""
    data: str | None = None
    """Directory below ``runtimes`` with that bundle's data, if it brings any."""
    fixed: str | None = None
    """What it shares with those that running services take over as they are (``fixed_digest``)."""


@dataclass
class Transaction:
    """A change that has begun and has not ended."""

    generation: str
    previous: str | None
    """Where a revert goes; ``None``: nothing was running before."""
    started_at: str
    confirm_timeout_s: float
    rollback: bool = False
    event: str | None = None
    """Once reverting: what began the revert."""
    reason: str | None = None
    boot_id: str | None = None
    """Once provisional: the boot in which ``deadline`` counts."""
    deadline: float | None = None
    """Seconds of CLOCK_BOOTTIME at which the generation reverts by itself."""
    deadline_at: str | None = None
    """The same as a time of day, for people only."""
    restarts: dict[str, int] = field(default_factory=dict)
    """Restarts counted by systemd when the generation became provisional."""
    attempts: int = 0
    deployment_before: str | None = None
    """The ``deployment`` of the generation before this change, in case that comes to nothing."""
    deployed_at_before: str | None = None
    undoes: str | None = None
    """The deployment that is undone with it, if that is what this is; then it is not judged alone.

    Or :func:`undo_of` one.
    """
    together: list[str] = field(default_factory=list)
    """The other services of this host that go back with it."""
    deployment: str | None = None
    """Id of the deployment that this is part of: whoever deploys looks at the host in the end."""
    unjudged_since: float | None = None
    """When it was switched to (seconds of CLOCK_MONOTONIC), as long as its health has yet to be judged."""


@dataclass
class ServiceState:
    """Everything recorded of a service."""

    service: str
    counter: int = 0
    current: str | None = None
    """What the pointer of that name points to (or will, once a revert has ended)."""
    history: list[str] = field(default_factory=list)
    """Confirmed generations in the order they ran, the one running now last. Rollback goes back in it."""
    desired: str | None = None
    """The generation last staged or asked for; what ``activate`` takes when none is named."""
    last_left: str | None = None
    """The generation that went back last, until another is confirmed: its deployer may not know yet."""
    came_from: str | None = None
    """What ran before the current generation was confirmed."""
    undid: str | None = None
    """The deployment that was undone when the current generation was confirmed, if that is why it was."""
    generations: dict[str, Generation] = field(default_factory=dict)
    transaction: Transaction | None = None

    def runs(self, brought: str) -> bool:
        """Tell whether the service is on what a deployment brought, or an undo (:func:`undo_of`)."""
        entry = self.generations.get(self.current or "")
        by_undo = self.undid is not None and undo_of(self.undid) == brought
        return by_undo or (entry is not None and entry.deployment == brought)

    @property
    def previous(self) -> str | None:
        """Return the generation a rollback goes to: the confirmed one that ran before the last."""
        return self.history[-2] if len(self.history) > 1 else None

    def in_order(self) -> list[Generation]:
        """Return the generations, oldest first."""
        return sorted(
            self.generations.values(), key=lambda generation: int(generation.name.partition("-")[0])
        )


def undo_of(deployment: str) -> str:
    """Return what an undo is called where it is undone itself, in place of a deployment's id."""
    return f"undo of {deployment}"


def load(service: str, path: Path) -> ServiceState:
    """Return the state of ``service``; an empty one when there is no file.

    :raises FailedError: the file is damaged or of another format
    """
    document = read_document(path)
    if document is None:
        return ServiceState(service)
    try:
        transaction = document["transaction"]
        return ServiceState(
            service=document["service"],
            counter=document["counter"],
            current=document["current"],
            history=document["history"],
            desired=document["desired"],
            last_left=document["last_left"],
            came_from=document.get("came_from"),
            undid=document.get("undid"),
            generations={name: _generation(entry) for name, entry in document["generations"].items()},
            transaction=None if transaction is None else Transaction(**transaction),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def _generation(entry: dict[str, Any]) -> Generation:
    found = Generation(**entry)
    if found.confirmed_at is not None and found.state in (machine.FAILED, machine.REVERTED):
        # Of a tool that took a once confirmed generation for a bad one when its surroundings were.
        found.state = machine.CONFIRMED
    return found


def read_document(path: Path) -> dict[str, Any] | None:
    """Return the decoded state file, ``None`` when there is none.

    :raises FailedError: the file is damaged or of another format
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise _damaged(path, "not JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(path, f"its format is not {FORMAT}")
    return document


def save(state: ServiceState, path: Path) -> None:
    """Replace the state file; on disk when this returns."""
    document = {"format": FORMAT, **asdict(state)}
    store.replace_file(path, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n", 0o644)


def _damaged(path: Path, why: str) -> FailedError:
    return FailedError(
        f"{path} cannot be used: {why}",
        remedy="the running service is untouched; put a backup of the file back, or move it away and stage",
    )
