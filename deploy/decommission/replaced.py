"""What is kept of a gateway whose place another machine took, in `reports/replaced/`: enough to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from deploy.fleet.restoring import write
from deploy.fleet.vault_password import PROJECT

DIRECTORY = PROJECT / "reports" / "replaced"
Phase = Literal["described", "deployed", "done"]
"""The last that is done. `described`: inventory and keys name the new host. `deployed`: hosts know it.
`done`: nothing of the gateway is left on the former machine, or it is lost."""


class Record(msgspec.Struct, kw_only=True):
    """One replacement."""

    id: str
    inventory: str
    former: str
    new: str
    address: str
    who: str
    reason: str
    began: str
    state: str
    """Where the new gateway's state is from, in words."""
    lost: bool
    connection: dict[str, Any]
    """How the former machine is reached, which the inventory forgets; no secret."""
    phase: Phase = "described"

    def reached(self, phase: Phase) -> None:
        """Note a phase, so that a run that is interrupted after it goes on from there."""
        self.phase = phase
        DIRECTORY.mkdir(parents=True, exist_ok=True, mode=0o700)
        write(DIRECTORY / f"{self.id}.json", msgspec.json.format(msgspec.json.encode(self)).decode() + "\n")


def found(inventory: Path, former: str, new: str) -> Record | None:
    """The newest record of this replacement in this inventory, finished or not."""
    for path in sorted(DIRECTORY.glob("*.json"), reverse=True):
        try:
            one = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            continue
        if (one.inventory, one.former, one.new) == (str(inventory.resolve()), former, new):
            return one
    return None
