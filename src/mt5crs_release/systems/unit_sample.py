"""What a service manager says of a unit, on either system."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnitSample:
    """What systemd says of a unit."""

    active: str
    """ActiveState."""
    result: str
    """Result of its last run, ``success`` or the reason of failure."""
    restarts: int
    """NRestarts since the switch."""
    exit_status: int
    invocation: str = ""
    """systemd's name of this one run of the unit; empty where there is no such thing."""
