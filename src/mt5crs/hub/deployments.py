"""The fleet's deployments as the release tool on this host tells of them, in a file that all may read."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from mt5crs.foreign_text import shown_tree

_MOST_BYTES = 2 * 1024 * 1024


class Told:
    """The file's content, read again when it has changed. Safe from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._content: dict[str, Any] = {}

    def now(self) -> dict[str, Any]:
        """`known`, `reason` why it is not, and `deployments`: the newest first; None when not known."""
        with self._lock:
            return self._read()

    def _read(self) -> dict[str, Any]:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                if status.st_size > _MOST_BYTES:
                    raise ValueError(f"it has more than {_MOST_BYTES >> 20} MB")
                found = json.loads(self._path.read_bytes())
                if not isinstance(found, dict) or not isinstance(found.get("deployments"), list):
                    raise ValueError("it has no list of deployments")
                self._content, self._stamp = dict(shown_tree(found)), stamp
        except FileNotFoundError:
            return _unknown("none was recorded since this Hub keeps them for the page")
        except (OSError, ValueError) as error:
            return _unknown(f"{self._path} cannot be read ({error}); the next deployment writes it anew")
        return {"known": True, "reason": "", "deployments": self._content["deployments"]}


def _unknown(reason: str) -> dict[str, Any]:
    return {"known": False, "reason": reason, "deployments": None}
