"""Ends a strategy that breaks a limit: its process becomes the one that says so, and the strategy is gone.

A thread looks; the strategy's own may be anywhere, also in code that never returns. So nothing is closed
first: what was sent is in the journal before it is sent, and the lease runs out.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mt5crs.service import exits
from mt5crs.service.logs import Log
from mt5crs.strategy.limits import Broken, Use, broken, broken_before, broken_by
from mt5crs.strategy.refusals import STOPPED, RefusedError
from mt5crs.strategy.usage import Usage

_LOOK_S = 0.25
_LOOKS_FOR_ALL = 4
_PATIENCE_S = 3.0
"""After which a callback that nobody could stop is killed by the kernel: time for the thread that looks, on a
machine that is busy."""


class Watch:
    """Looks at what the strategy takes from the moment it is begun."""

    def __init__(
        self,
        log: Log,
        usage: Usage,
        callback_most_s: float,
        end: Callable[[Broken], None] | None = None,
    ) -> None:
        self._log = log
        self._callback_most_s = callback_most_s
        self._end = end or become_stopped
        self._usage = usage
        self._running: tuple[str, float] | None = None

    def begin(self) -> None:
        """Look until the process ends."""
        threading.Thread(target=self._look, name="limits", daemon=True).start()

    @contextmanager
    def calling(self, callback: str, *, limited: bool = True) -> Iterator[None]:
        """The strategy's code runs. One that lets the error of a limit pass is stopped for it."""
        if limited:
            self._running = (callback, time.monotonic())
            # Code in C may keep this process from running Python at all, the thread that looks included.
            signal.setitimer(signal.ITIMER_REAL, self._callback_most_s + _PATIENCE_S)
        try:
            yield
        except Exception as error:
            found = error.found if isinstance(error, RefusedError) else broken_by(error)
            if found is not None:
                self._end_for(found)
            raise
        finally:
            self._running = None
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _look(self) -> None:
        look, told = 0, False
        while True:
            time.sleep(_LOOK_S)
            look += 1
            try:
                use = self._usage.memory() if look % _LOOKS_FOR_ALL else self._usage.all()
            except Exception as error:  # nobody would look any more
                if not told:
                    self._log.error("strategy.limits_unknown", error=repr(error))
                use, told = Use(), True
            running = self._running
            if running is not None:
                use = use._replace(
                    callback=running[0],
                    callback_s=time.monotonic() - running[1],
                    callback_most_s=self._callback_most_s,
                )
            found = broken(use)
            if found is not None:
                self._end_for(found)
                return

    def _end_for(self, found: Broken) -> None:
        self._log.critical("strategy.limit", limit=found.limit, cause=found.cause, remedy=found.remedy)
        self._end(found)


def become_stopped(found: Broken) -> None:
    """Replace this process, all its threads and its memory, by `mt5crs.strategy.stopped`. Does not return."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # it would outlive this program
    sys.stdout.flush()
    try:
        os.execv(sys.executable, [sys.executable, "-m", STOPPED, *found])  # noqa: S606
    except OSError as error:
        print(f"{STOPPED} cannot be started: {error}; the strategy is ended all the same", file=sys.stderr)
        exits.leave(exits.FAILED)


def stop_if_killed(state_dir: Path) -> None:
    """Become the one that says so, once, if the process before was killed for a limit.

    The unit leaves in a file how it ended, in systemd's words.
    """
    left = state_dir / "ended"
    try:
        found = broken_before(left.read_text(encoding="utf-8"))
        left.unlink()
    except OSError:
        return
    if found is not None:
        become_stopped(found)
