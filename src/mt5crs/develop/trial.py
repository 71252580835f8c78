"""`python -m mt5crs.develop.trial`: tries a strategy in a process that cannot trade and may not act outside.

Python's audit events tell of connections, programs, files that are written. The first of each kind is refused
and noted. Writes what it found line by line, so that whoever waits knows where a strategy hangs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mt5crs.develop.practice import PracticeTrading, practice
from mt5crs.strategy.api import OrderError, Strategy
from mt5crs.strategy.loading import load_strategy
from mt5crs.strategy.refusals import PROCESSES, WRITING

FORBIDDEN = {
    "socket.connect": "opens a connection",
    "socket.bind": "listens on a port",
    "socket.getaddrinfo": "looks up a name in the network",
    **PROCESSES,
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.mkdir": "makes a directory",
    "os.rmdir": "removes a directory",
}
"""Audit event → what does not belong in a strategy. A host's sandbox refuses most of it, not all."""


class ForbiddenCallError(PermissionError):
    """The strategy tried something that does not belong in one."""


class Guard:
    """Refuses and notes what is forbidden, while the strategy's own code runs."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}
        self._armed = False
        sys.addaudithook(self._hear)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The strategy's code runs."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Ours runs, called by it."""
        before, self._armed = self._armed, False
        try:
            yield
        finally:
            self._armed = before

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        what = FORBIDDEN.get(event)
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            what = f"writes {arguments[0]}"
        if what is None:
            return
        with self.resting():
            frames = [frame for frame in traceback.extract_stack() if not _of_python(frame.filename)]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        self.found[f"{what} ({where})"] = None
        raise ForbiddenCallError(f"this {what}, which does not belong in a strategy")


def _of_python(file: str) -> bool:
    inside = ("mt5crs/develop", "mt5crs\\develop", "<frozen")
    return file.startswith((sys.base_prefix, sys.prefix)) or any(part in file for part in inside)


def main(arguments: list[str]) -> int:
    """Try one strategy; the document with its name, options and so on is the only argument."""
    asked = json.loads(arguments[0])
    with Path(asked["results"]).open("a", encoding="utf-8", buffering=1) as results:

        def tell(**what: Any) -> None:
            results.write(json.dumps(what) + "\n")

        guard = Guard()
        try:
            _try(asked, guard, tell)
        except Exception as error:  # whatever a strategy raises is its result
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            tell(failed=f"{type(error).__name__}: {error} ({where})", forbidden=list(guard.found))
            return 1
        tell(done=True, forbidden=list(guard.found))
    return 0


def _try(asked: dict[str, Any], guard: Guard, tell: Callable[..., None]) -> None:
    tell(phase="import")
    with guard.watching():
        loaded = load_strategy(asked["strategy"])
    if asked["data_dir"]:
        loaded.data_dir = Path(asked["data_dir"])
    tell(phase="constructor")
    with guard.watching():
        strategy = loaded(asked["options"])
    times: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        practice(Path(directory), asked["symbol"], asked["volume"], guard.resting) as trading,
    ):
        errors = 0
        for name in ("on_start", *["on_timer"] * asked["calls"], "on_resume", "on_stop"):
            tell(phase=name) if name not in times else None
            trading.advance(asked["interval_s"])
            errors += not _called(strategy, name, trading, guard, times)
        tell(times=times, errors=errors, positions=len(trading.positions()))


def _called(
    strategy: Strategy, name: str, trading: PracticeTrading, guard: Guard, times: dict[str, list[float]]
) -> bool:
    call = getattr(strategy, name)
    given = () if name == "on_stop" else (trading,)
    began = time.perf_counter()
    try:
        with guard.watching():
            call(*given)
    except OrderError:
        return False
    finally:
        times.setdefault(name, []).append(time.perf_counter() - began)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
