"""Being told to stop: a run then undoes what it began; while it goes back it does not listen."""

from __future__ import annotations

import signal
from types import FrameType

from mt5crs_release.errors import InterruptedRunError

_STOP = (signal.SIGTERM, signal.SIGINT)


def listen() -> None:
    """Turn SIGTERM and SIGINT into an exception; a lost connection (SIGHUP) does not stop a run."""
    if hasattr(signal, "SIGHUP"):  # Windows has none
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in _STOP:
        signal.signal(number, _stop)


def ignore() -> None:
    """Ignore requests to stop from here on: going back must come to its end."""
    for number in _STOP:
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, _: FrameType | None) -> None:
    raise InterruptedRunError(
        f"stopped by {signal.Signals(number).name}",
        remedy="repeat the command when you are ready; nothing is left half-way",
    )
