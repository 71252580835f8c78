"""Deployments and incidents as root's programs on this host tell of them, in files that all may read."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from mt5crs.foreign_text import shown_tree

_MOST_BYTES = 2 * 1024 * 1024


class Told:
    """The file's content, read again when it has changed. Safe from any thread."""

    def __init__(self, path: Path, name: str, without: str) -> None:
        """name: of the list in it. without: what it means when there is no such file."""
        self._path, self._name, self._without = path, name, without
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._content: dict[str, Any] = {}

    def now(self) -> dict[str, Any]:
        """`known`, `reason` why it is not, and the list, newest first; None when not known."""
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
                if not isinstance(found, dict) or not isinstance(found.get(self._name), list):
                    raise ValueError(f"it has no list of {self._name}")
                self._content, self._stamp = dict(shown_tree(found)), stamp
        except FileNotFoundError:
            return self._unknown(self._without)
        except (OSError, ValueError) as error:
            return self._unknown(f"{self._path} cannot be read ({error}); the next one writes it anew")
        return {"known": True, "reason": "", self._name: self._content[self._name]}

    def _unknown(self, reason: str) -> dict[str, Any]:
        return {"known": False, "reason": reason, self._name: None}
