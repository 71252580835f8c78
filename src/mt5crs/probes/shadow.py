"""`mt5crs standby shadow`: follows the tapes of a running strategy and of its shadow until it is decided."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from mt5crs.probes.agreement import Agreement, Terms, Verdict, Word, judge, told_of
from mt5crs.probes.health import HealthCheckBrokenError, ask_health
from mt5crs.service import exits
from mt5crs.strategy.tape import TapeReader

BROKEN = 2
"""Exit status: the new version broke a limit, and was stopped for it."""
_LOOK_S = 0.2
_TELL_S = 1.0
_BEGIN_S = 15.0
"""Within which the running strategy must have begun its tape."""
_AWAY_S = 15.0
"""For which it may have none, while it is started anew."""
_NO_TAPE = "its release knows no shadow, or it cannot write (its log says tape.given_up)"
_CATCH_UP_S = 3.0


class Follower:
    """One comparison: reads, tells how far it is, and ends with a verdict."""

    def __init__(
        self,
        running: Path,
        candidate: Path,
        health: tuple[str, int],
        terms: Terms,
        *,
        tolerance_s: float,
        record: Path,
        word: Path,
    ) -> None:
        """record: where to tell how far it is. word: where somebody may promote or drop."""
        self._running, self._new = TapeReader(running), TapeReader(candidate)
        self._health = health
        self._terms = terms
        self._record, self._word = record, word
        self.found = Agreement(tolerance_s)
        self._began = time.time()
        self._asked_by = os.getppid()

    def follow(self) -> Verdict:
        """Until the window is over, somebody says a word, or the shadow is stopped."""
        try:
            verdict = self._follow()
        finally:
            self._running.close()
            self._new.close()
        if not self._orphaned:  # another run may have begun another comparison
            self._tell(verdict)
        return verdict

    @property
    def _orphaned(self) -> bool:
        """Whether nobody waits for the verdict any more: the release tool was killed."""
        return os.getppid() != self._asked_by

    def _follow(self) -> Verdict:
        began = told = there = time.monotonic()
        self._tell(None)
        while (elapsed := time.monotonic() - began) < self._terms.window_s:
            time.sleep(_LOOK_S)
            if self._orphaned:
                return Verdict(exits.INCONCLUSIVE, "the run that asked for this comparison has died")
            self._read()
            if not self.found.began and elapsed > _BEGIN_S:
                return Verdict(exits.INCONCLUSIVE, f"the running strategy puts nothing on tape: {_NO_TAPE}")
            there = time.monotonic() if self._running.there else there
            if time.monotonic() - there > _AWAY_S:
                return self._tape_ended()
            if (word := self._heard()) is not None:
                self.found.end()
                return judge(self.found, self._terms, word)
            if time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                self._tell(None)
                if (stopped := self._stopped()) is not None:
                    self.found.end()
                    return stopped
        until = time.monotonic() + _CATCH_UP_S
        while self.found.behind and time.monotonic() < until:
            time.sleep(_LOOK_S)
            self._read(more=False)
        self.found.end()
        return judge(self.found, self._terms) if self._running.there else self._tape_ended()

    def _tape_ended(self) -> Verdict:
        """What was compared until then is not what was asked for."""
        self.found.end()
        why = "the running strategy has ended its tape, because it stopped or cannot write"
        return Verdict(exits.INCONCLUSIVE, f"{why}; {told_of(self.found)}")

    def _read(self, *, more: bool = True) -> None:
        if more:
            self.found.take_running(self._running.read())
        self.found.take_new(self._new.read())

    def _heard(self) -> Word | None:
        try:
            said = json.loads(self._word.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(said, dict) or said.get("said") not in ("promote", "drop"):
            return None
        return Word(said["said"], str(said.get("by") or "somebody"))

    def _stopped(self) -> Verdict | None:
        try:
            told = ask_health(*self._health)[1]
        except (OSError, HealthCheckBrokenError):
            return None  # the release tool sees for itself whether its unit lives
        if told.get("state") != "stopped":
            return None
        return Verdict(BROKEN, f"the new version was stopped: {told.get('reason')}")

    def _tell(self, verdict: Verdict | None) -> None:
        document: dict[str, Any] = {
            "state": "running" if verdict is None else "ended",
            "began": round(self._began, 3),
            "now": round(time.time(), 3),
            "window_s": self._terms.window_s,
            "agreement_percent": self._terms.agreement_percent,
            "least_decisions": self._terms.least_decisions,
            "promotion": self._terms.promotion,
            "promoted": None if verdict is None else verdict.status == exits.OK,
            "reason": "" if verdict is None else verdict.reason,
            **self.found.as_json(),
        }
        temporary = self._record.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: the comparison goes on, nobody can look at it
            temporary.touch(0o600)
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(self._record)
