"""The life of the Hub's service: reviews that wait are made, one after the other, and their answers kept."""

from __future__ import annotations

import base64
import os
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from mt5crs.review import activation, figures, making, submission, switch, verdict
from mt5crs.review.budget import BudgetError
from mt5crs.review.history import FILE, History, totals
from mt5crs.review.model import ReviewError
from mt5crs.review.queue import MOST_TRIES, Answer, Queue
from mt5crs.review.record import Record
from mt5crs.review.submission import Submission
from mt5crs.service import notify
from mt5crs.service.endpoint import Endpoint, Health
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.settings.review import ReviewSettings

_TICK_S: Final = 0.5
_RETRY_S: Final = 10.0
"""After the disk was full."""
_SECRETS: Final = ("REVIEW_API_KEY", "REVIEW_FALLBACK_API_KEY", "REVIEW_SIGNING_KEY")


class Sums(Registry):
    """The metrics: those of the queue, and what reviews have cost, from the record of runs."""

    def __init__(self, settings: ReviewSettings, directory: Path) -> None:
        super().__init__()
        self._settings = settings
        self._directory = directory

    def render(self) -> str:
        """Everything; what cannot be read is left out."""
        try:
            runs = History(self._directory / FILE).runs()
            budget = making.budget(self._settings, self._directory)
            return super().render() + figures.exposition(runs, totals(runs), self._settings, budget)
        except (ReviewError, BudgetError):
            return super().render()


class Reviews:
    """The service. `run` returns after `stop()`."""

    def __init__(self, settings: ReviewSettings, log: Log) -> None:
        """Opens queue and end point; raises OSError that says what to correct."""
        for name in _SECRETS:  # ssh-keygen has no need of them
            os.environ.pop(name, None)
        self._settings, self._log = settings, log
        self._directory = Path(settings.state_dir)
        self._queue = Queue(self._directory, settings.keep_answers)
        self._stopping = threading.Event()
        self._trouble = ""
        self._running = ""
        self._worker = threading.Thread(target=self._work, name="reviews", daemon=True)
        registry = Sums(settings, self._directory)
        waiting = registry.gauge("mt5crs_review_waiting", "Submissions that wait or are under way.")
        waiting.from_callable(lambda: float(len(self._queue.ids())))
        busy = registry.gauge("mt5crs_review_under_way", "Whether a review is being made.")
        busy.from_callable(lambda: float(bool(self._running)))
        self._answered = registry.counter("mt5crs_review_answers_total", "Submissions answered.", ("result",))
        self.endpoint = Endpoint(
            settings.metrics_address,
            settings.metrics_port,
            registry,
            self.health,
            settings=("REVIEW_METRICS_ADDRESS", "REVIEW_METRICS_PORT"),
        )

    def stop(self) -> None:
        """Make `run` return soon (signal-safe). A review that is under way is made anew at the next start."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of everything."""
        self.endpoint.close()
        if self._running:
            self._queue.untried(self._running)

    def run(self) -> None:
        """Make reviews until told to stop."""
        self._worker.start()
        notify.ready("waiting for submissions")
        interval, fed = notify.watchdog_interval_s(), 0.0
        while not self._stopping.wait(_TICK_S):
            now = time.monotonic()
            if interval is not None and now - fed >= interval and self._worker.is_alive():
                notify.watchdog()
                fed = now

    def health(self) -> Health:
        """Healthy while it can keep what it finds; a reviewer that is down is no fault of the service."""
        dead = self._worker.ident is not None and not self._worker.is_alive() and not self._stopping.is_set()
        reason = "the thread that reviews has ended; see the journal" if dead else self._trouble
        return {
            "healthy": not reason,
            "state": "unknown" if reason else "ready",
            "reason": reason,
            "waiting": len(self._queue.ids()),
            "under_way": self._running,
        }

    # ---- the thread that reviews ----

    def _work(self) -> None:
        self._try_optimiser()
        while not self._stopping.is_set():
            waiting = self._queue.ids()
            if waiting:
                self._next(waiting[0])
            else:
                self._stopping.wait(_TICK_S)

    def _next(self, name: str) -> None:
        self._running = name
        try:
            answer = self._answer(name)
            while not self._kept(answer) and not self._stopping.wait(_RETRY_S):
                pass
        except OSError as error:
            self._fault(f"the queue cannot be read or written ({error}); look at the disk's room")
            self._stopping.wait(_RETRY_S)
        finally:
            self._running = ""

    def _kept(self, answer: Answer) -> bool:
        try:
            self._queue.answer(answer)
        except OSError as error:
            self._fault(f"an answer cannot be kept ({error}); make room on the disk of {self._directory}")
            return False
        self._trouble = ""
        result = answer.record.decision.result if answer.record else "error"
        self._answered.inc(result)
        self._log.info("review.answered", id=answer.id, result=result, error=answer.error)
        return True

    def _fault(self, why: str) -> None:
        self._trouble = why
        self._log.error("review.not_kept", reason=why)

    def _answer(self, name: str) -> Answer:
        """Make the review. What cannot be made is answered with the reason."""
        by = ""
        try:
            if self._queue.tried(name) > MOST_TRIES:
                raise ReviewError(
                    f"it has ended the service {MOST_TRIES} times, so it is left; see the journal"
                )
            if self._queue.size(name) > self._settings.submission_mb * 1_000_000:
                raise ReviewError("it is larger than review_submission_mb; submit less, or raise it")
            asked = submission.read(self._queue.content(name), self._settings.submission_mb)
            by = asked.by
            if asked.id != name:
                raise ReviewError(f"the submission is {asked.id}, not {name}; submit it again")
            self._log.info("review.begun", id=name, tree=asked.tree, by=by)
            return self._reviewed(name, asked)
        except ReviewError as error:
            return Answer(id=name, at=time.time(), by=by, error=str(error))
        except OSError:
            raise
        except Exception as error:  # hostile content must not end the service for the others
            self._log.error("review.failed", id=name, error=repr(error))
            return Answer(id=name, at=time.time(), by=by, error=f"the review failed: {type(error).__name__}")

    def _reviewed(self, name: str, asked: Submission) -> Answer:
        settings, tool = self._settings, version("mt5crs")
        if asked.tool != tool:
            raise ReviewError(
                f"the controller has version {asked.tool} and the Hub {tool}: deploy the Hub's review "
                "(--tags review) from the same tree"
            )
        tree, base = submission.trees(asked)
        contents = submission.contents(asked, tree)
        gate = making.external_gate(settings, self._directory)
        made = making.make(
            tree, base, asked.policy, self._directory, gate.ask, outcomes=asked.outcomes, by=asked.by
        )
        figures.keep(made, settings, self._directory, making.budget(settings, self._directory))
        unsigned = ""
        if contents and not settings.signing_key:
            unsigned = "review_signing_key is not set, so the Hub signs no verdict"
        verdicts = {} if unsigned else self._signed(made, contents)
        return Answer(id=name, at=time.time(), by=asked.by, record=made, verdicts=verdicts, unsigned=unsigned)

    def _signed(self, made: Record, contents: dict[str, str]) -> dict[str, str]:
        if not contents:
            return {}
        with tempfile.TemporaryDirectory(prefix="mt5crs-review-") as scratch:
            key = Path(scratch) / "key"
            descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64decode(self._settings.signing_key))
            return {
                bundle: verdict.signed(made, content, key).decode() for bundle, content in contents.items()
            }

    def _try_optimiser(self) -> None:
        """Switch the optimiser on once it was seen to work, for each version; reviews go on without it."""
        settings = self._settings
        if settings.reviewer is None or not settings.api_key or not settings.optimiser:
            return
        tool = version("mt5crs")
        if not switch.why_off(self._directory, tool):
            return
        try:
            report = activation.checked(settings, self._directory, with_programs=False)
            if report.verdict != "FAIL":
                switch.turn(self._directory, on=True, tool=tool)
            failed = [f"{each.name}: {each.detail}" for each in report.findings if each.verdict == "FAIL"]
            self._log.info("review.optimiser", on=report.verdict != "FAIL", failed=failed)
        except Exception as error:
            self._log.warning("review.optimiser", on=False, failed=[repr(error)])
