"""`NAME.jsonl`: one JSON object a line, oldest first; a full file becomes `NAME.1.jsonl`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


class EventFile:
    """Appends lines; file and predecessor together stay below the bound. Raises OSError when it cannot."""

    def __init__(self, directory: Path, most_bytes: int, name: str = "events") -> None:
        """Opens the file; a line that a crash has cut off is ended, so that the next one is whole."""
        self.path = directory / f"{name}.jsonl"
        self.previous = directory / f"{name}.1.jsonl"
        self._most = most_bytes // 2
        self._file = self._open()

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")
        return descriptor

    def append(self, lines: Iterable[str]) -> None:
        """Add lines (without their ends)."""
        text = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
        if not text:
            return
        if os.fstat(self._file).st_size + len(text) > self._most:
            with contextlib.suppress(FileNotFoundError):  # by a try before, which could open no other
                self.path.replace(self.previous)
            former, self._file = self._file, self._open()
            os.close(former)
        while text:
            text = text[os.write(self._file, text) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
