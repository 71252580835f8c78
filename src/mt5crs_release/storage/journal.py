"""What the tool did, one JSON object a line, appended and put on disk before the next step.

For people and for a controller that lost its connection; the state itself is in ``state.json``.
Nothing of a specification's content is ever recorded.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def timestamp() -> str:
    """Return the time now, UTC, as ISO 8601 with milliseconds."""
    return written(datetime.now(timezone.utc))


def written(moment: datetime) -> str:
    """Return a moment in UTC as ISO 8601 with milliseconds; such texts compare as the moments do."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """Appends to and reads one journal file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **fields: Any) -> None:
        """Record ``event``; it is on disk when this returns.

        A line that a crash tore is closed first, so the new one stays readable.
        """
        record = json.dumps({"time": timestamp(), "event": event, **fields}, separators=(",", ":"))
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            os.lseek(descriptor, max(0, size - 1), os.SEEK_SET)
            torn = size > 0 and os.read(descriptor, 1) != b"\n"
            os.write(descriptor, ("\n" if torn else "").encode() + record.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """Return the readable records, oldest first; a torn line is skipped."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        records = []
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records
