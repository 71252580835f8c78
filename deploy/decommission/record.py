"""What is kept of a host that left in `reports/decommissioned/`: enough to go on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from deploy.fleet.vault_password import PROJECT

DIRECTORY = PROJECT / "reports" / "decommissioned"
Phase = Literal["begun", "stopped", "fetched", "out", "revoked", "done"]
"""The last that is done. `out`: of the inventory. `revoked`: the rest was deployed without it."""


class Record(msgspec.Struct, kw_only=True):
    """One host that leaves, or left."""

    id: str
    inventory: str
    host: str
    gateway: str
    magic: int
    who: str
    reason: str
    began: str
    held: str
    hand_over: str | None
    lost: bool
    connection: dict[str, Any]
    """How the host is reached, which the inventory forgets; no secret."""
    phase: Phase = "begun"
    data_sha256: str | None = None

    @property
    def data(self) -> Path:
        """Where what was fetched lies."""
        return DIRECTORY / f"{self.id}.tar.gz"

    def reached(self, phase: Phase) -> None:
        """Note a phase, so that a run that is interrupted after it goes on from there."""
        self.phase = phase
        DIRECTORY.mkdir(parents=True, exist_ok=True, mode=0o700)
        written = DIRECTORY / f".{self.id}.json"
        written.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
        written.replace(DIRECTORY / f"{self.id}.json")


def unfinished(inventory: Path, host: str) -> Record | None:
    """The newest record of a host that is out of this inventory and not done yet."""
    for path in sorted(DIRECTORY.glob("*.json"), reverse=True):
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            continue
        if (found.host, found.inventory) == (host, str(inventory.resolve())):
            return found if found.phase in ("out", "revoked") else None
    return None
