"""How long a switch kept a service away, told by systemd's own clock."""

from __future__ import annotations

from collections.abc import Mapping

_STOPPING, _STOPPED, _READY = (
    "ActiveExitTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
)
PROPERTIES = (_STOPPING, _STOPPED, _READY)
"""Of a unit, in microseconds of CLOCK_MONOTONIC; 0: never."""


def gaps(units: Mapping[str, Mapping[str, int]], since: float) -> dict[str, dict[str, float]]:
    """Return what the switch that began at ``since`` (s, CLOCK_MONOTONIC) cost each unit that it restarted.

    ``gap_s``: from being told to stop, ``stopped_s``: from the old process' end, each until READY.
    A unit that did not run before, or is not ready, is left out. Pure.
    """
    found = {}
    for name, stamps in units.items():
        stopping, stopped, ready = (stamps.get(stamp, 0) / 1e6 for stamp in PROPERTIES)
        if since <= stopping <= stopped <= ready:
            found[name] = {"gap_s": round(ready - stopping, 3), "stopped_s": round(ready - stopped, 3)}
    return found
