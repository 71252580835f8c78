"""`access.jsonl`: who was answered what by the Hub's page and interface, and how.

A line never holds a token, a query or the text of a post. What others wrote into it cannot end the line, and
steers no terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from mt5crs.foreign_text import shown
from mt5crs.hub.event_file import EventFile
from mt5crs.service.endpoint import Access

_LONGEST_PATH, _LONGEST_METHOD = 200, 20
_LIKE_A_SECRET = re.compile(r"[A-Za-z0-9+=_-]{24,}")
"""A token that somebody has pasted behind the address; no path of ours has so long a word."""
_OWN_CHECKS = ("/metrics", "/health")


class AccessLog:
    """Keeps what it is called with; a file that cannot be written keeps nobody from reading."""

    def __init__(self, directory: Path, most_bytes: int, failed: Callable[[str], None]) -> None:
        """`failed(reason)` hears of what could not be kept. Raises OSError when there can be no file."""
        self._file = EventFile(directory, most_bytes, "access")
        self._failed = failed

    def __call__(self, access: Access) -> None:
        """Keep a line, but for this host's own Prometheus and health check: they ask every few seconds."""
        if access.here and access.path in _OWN_CHECKS:
            return
        try:
            self._file.append([line(access, datetime.now(timezone.utc))])
        except OSError as error:
            self._failed(f"{self._file.path}: {error.strerror or error}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line(access: Access, at: datetime) -> str:
    """One request as a JSON object, without its end of line."""
    path = _LIKE_A_SECRET.sub("…", access.path[: 4 * _LONGEST_PATH])
    told = {
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "from": access.peer,
        "who": access.who or None,
        "tls": access.tls or None,
        "method": shown(access.method[:_LONGEST_METHOD]),
        "path": shown(path[:_LONGEST_PATH]),
        "status": int(access.status),
        "bytes": access.size,
        "duration_s": round(access.took_s, 4),
    }
    return json.dumps({**told, "opened": True} if access.opened else told, separators=(",", ":"))
