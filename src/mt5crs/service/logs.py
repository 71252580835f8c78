"""JSON lines on standard output, one per event: journald stores them, `jq` reads them."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Final, TextIO

LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class Log:
    """A logger for one service.

    Every line is one JSON object: `ts` (UTC, RFC 3339, milliseconds), `level`, `service`, `event` and the
    fields given. Callers never pass secrets; values that JSON does not know are written as `str(value)`.
    """

    def __init__(self, service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
        """`level` is one of LEVELS; raises ValueError otherwise."""
        self._service = service
        self.set_level(level)
        self._stream = stream if stream is not None else sys.stdout
        self._lock = threading.Lock()

    def set_level(self, level: str) -> None:
        """Log nothing less severe from now on; raises ValueError for what is no level."""
        if level not in LEVELS:
            raise ValueError(f"log level {level!r} is unknown; use one of {', '.join(LEVELS)}")
        self._threshold = LEVELS[level]

    def debug(self, event: str, **fields: object) -> None:
        """Detail for a developer."""
        self._write("DEBUG", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Normal course of events."""
        self._write("INFO", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something unusual that the program deals with."""
        self._write("WARNING", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something failed."""
        self._write("ERROR", event, fields)

    def critical(self, event: str, **fields: object) -> None:
        """The program stops or trading halts."""
        self._write("CRITICAL", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if LEVELS[level] < self._threshold:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        record = {"ts": stamp, "level": level, "service": self._service, "event": event, **fields}
        line = json.dumps(record, default=str, separators=(",", ":"))
        # A broken log pipe must not stop a service that holds positions.
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            return
