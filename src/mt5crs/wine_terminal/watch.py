"""When a terminal is started, left alone or ended. Pure: what was seen in, what to do out."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Act = Literal["wait", "start", "end"]
ANSWERS = ("connected", "trading_off", "offline", "login_failed", "other_account")
"""States that the gateway tells of a terminal that answers, whatever it says."""
TRYING = ("starting", "reconnecting", "failing", "hung")
"""States of one that does not. Any other word, or none, is unknown: a reason for nothing."""
STEADY_S = 600.0
"""One that ran for so long is started again at once when it ends."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
_LONGEST_PATIENCE = 12


class Seen(Struct, frozen=True, kw_only=True):
    """What was looked at. gateway: the terminal's state as the gateway tells it; empty: it does not."""

    there: bool
    """Whether the program's file is there."""
    running: bool
    updating: bool
    gateway: str = ""


class Verdict(Struct, frozen=True):
    """What to do, and why."""

    act: Act
    reason: str


class Watch:
    """Judges one terminal. Times are seconds of a monotonic clock."""

    def __init__(self, unanswered_s: float) -> None:
        """unanswered_s: how long it may run without an answer before it is ended; 0: for ever.

        Each end that did not help makes the next wait twice as long, to twelve times: an end does not close
        a dialog.
        """
        self._limit = self._patience = unanswered_s
        self._began: float | None = None
        self._unanswered: float | None = None
        self._pause = self._not_before = 0.0

    def decide(self, seen: Seen, now: float) -> Verdict:
        """What to do about what was seen. One that is started and not seen `running` next has ended."""
        if seen.running:
            return self._of_a_running(seen, now)
        if self._began is not None:
            lived, self._began, self._unanswered = now - self._began, None, None
            self._pause = 0.0 if lived >= STEADY_S else self._longer()
            self._not_before = now + self._pause
        if seen.updating:
            return Verdict("wait", "it is being updated")
        if not seen.there:
            return Verdict("wait", "there is no terminal at its path")
        if now < self._not_before:
            return Verdict("wait", f"it ended; started again after {self._pause:.0f} s")
        self._began = now
        return Verdict("start", "it does not run")

    def _longer(self) -> float:
        return min(max(_FIRST_PAUSE_S, self._pause * 2), _LONGEST_PAUSE_S)

    def _of_a_running(self, seen: Seen, now: float) -> Verdict:
        if self._began is None:  # an update has started it
            self._began = now
        if seen.gateway in ANSWERS:
            self._patience, self._unanswered = self._limit, None
            return Verdict("wait", f"it runs ({seen.gateway})")
        if seen.updating or seen.gateway not in TRYING:
            self._unanswered = None
            return Verdict(
                "wait", "it is being updated" if seen.updating else "it runs, and how is not known"
            )
        if self._unanswered is None:
            self._unanswered = now
        silent = now - max(self._unanswered, self._began)
        if not self._limit or silent < self._patience:
            return Verdict("wait", f"it runs and has not answered for {silent:.0f} s ({seen.gateway})")
        self._patience = min(self._patience * 2, self._limit * _LONGEST_PATIENCE)
        return Verdict("end", f"it has not answered for {silent:.0f} s ({seen.gateway})")
