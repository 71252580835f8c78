"""What became of an activation whose connection was lost: read from the host instead of repeated.

The release tool goes on without its connection, so the host knows: it has activated, has gone back, is still
at it, or has never heard of it. Pure; `deploy.operations.release` asks and waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_BEGUN: Mapping[str, Any] = {}
"""The call never reached the host, so it may be made again."""
_GOOD = ("provisional", "confirmed")
_LEFT = ("reverted", "failed")


def answer_of(listed: Mapping[str, Any], generation: str) -> Mapping[str, Any] | None:
    """The answer that was lost, from what `mt5crs-release list` says now; None: still at it.

    generation: the one that was to be activated.
    """
    entries = {entry["generation"]: entry for entry in listed.get("generations", ())}
    entry = entries.get(generation)
    if entry is None or entry["state"] == "staged":
        return NOT_BEGUN
    # Confirmed once and not running: an attempt begins by forgetting why the one before came to nothing.
    kept = entry["state"] == "confirmed" and not entry.get("current")
    if kept and not entry.get("reason"):
        return NOT_BEGUN
    current = next((name for name, one in entries.items() if one.get("current")), None)
    told = {"generation": current, "attempted": generation, "state": entry["state"], "changed": True}
    if entry["state"] in _GOOD and entry.get("current"):
        return {
            **told,
            "version": entry.get("version"),
            "reason": "the connection was lost; the host went on",
        }
    if kept or entry["state"] in _LEFT:
        reason = (
            f"the connection was lost, and the host went back: {entry.get('reason') or 'no reason known'}"
        )
        return {
            **told,
            "error": {"message": reason, "remedy": "read journal.jsonl of the service on the host"},
        }
    return None
