"""Whether the optimiser is switched on: a file beside the cache, written by `mt5crs review activate`."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.review.record import whole

FILE: Final = "optimiser.json"
_HINT: Final = "`mt5crs review activate` tries it and switches it on"


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was switched, when, and by which version."""

    on: bool
    at: str
    """UTC, RFC 3339."""
    tool: str


def why_off(directory: Path, tool: str) -> str:
    """Why the optimiser is off; empty when it is on. It was tried with one version and counts for that."""
    try:
        state = msgspec.json.decode((directory / FILE).read_bytes(), type=State)
    except FileNotFoundError:
        return f"the optimiser was never switched on; {_HINT}"
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        return f"whether the optimiser is on cannot be read from {directory / FILE} ({error}); {_HINT}"
    if not state.on:
        return f"the optimiser was switched off on {state.at}; {_HINT}"
    if state.tool != tool:
        return f"the optimiser was tried with version {state.tool}, and this is {tool}; {_HINT}"
    return ""


def turn(directory: Path, *, on: bool, tool: str) -> None:
    """Switch it on or off, in one step.

    :raises OSError: the file cannot be written
    """
    directory.mkdir(parents=True, exist_ok=True)
    at = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    whole(directory / FILE, msgspec.json.encode(State(on=on, at=at, tool=tool)))
