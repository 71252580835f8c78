"""The marker of a complete runtime: what it was built from. Read often, so it imports little."""

from __future__ import annotations

import json
from typing import Any

from mt5crs_release.storage.paths import COMPLETE, Host


def read(host: Host, name: str) -> dict[str, Any] | None:
    """Return what the marker of runtime ``name`` says, ``None`` when it is missing or incomplete."""
    try:
        record = json.loads((host.runtimes / name / COMPLETE).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def built_at(host: Host, name: str) -> str:
    """Return when runtime ``name`` was complete, as a generation's ``staged_at``; empty when it is not."""
    try:
        status = (host.runtimes / name / COMPLETE).stat()
    except OSError:
        return ""
    from datetime import datetime, timezone

    from mt5crs_release.storage.journal import written

    return written(datetime.fromtimestamp(status.st_mtime, timezone.utc))


def protocol(host: Host, name: str | None) -> dict[str, int] | None:
    """Return the protocol versions that the code of runtime ``name`` speaks: least and most.

    ``None``: there is no code, or it was built by a tool that did not note them.
    """
    record = read(host, name) if name else None
    return record.get("protocol") if record else None
