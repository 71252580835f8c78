"""The Hub's queue of reviews, on its disk: submissions that wait, answers that are kept.

A submission is removed when its answer is on the disk and not before, so what kills the service loses none.
Who brings submissions (`deploy/reviewing/on_host.py`) writes them whole, in one step.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.review.model import ReviewError
from mt5crs.review.record import Record

WAITING, ANSWERS = "waiting", "answers"
MOST_TRIES: Final = 3
"""A review that has ended the service so often is answered with an error."""
_ID: Final = re.compile(r"[0-9a-f]{16}\Z")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a submission: a record and signed verdicts, or the error that there is none for."""

    id: str
    at: float
    """When, in Unix time."""
    by: str = ""
    error: str = ""
    record: Record | None = None
    verdicts: dict[str, str] = msgspec.field(default_factory=dict)
    """File name of each bundle: its signed verdict (JSON)."""
    unsigned: str = ""
    """Why no verdict was signed; empty: one was, or none was asked for."""

    @property
    def final(self) -> bool:
        """Whether asking again could bring nothing else: it passed, or the reviewer was asked about all."""
        if self.record is None:
            return False
        decision = self.record.decision
        return decision.result == "PASSED" or decision.external != "not_asked"


class Queue:
    """Submissions in the order in which they came."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Make the directories; raises OSError."""
        self._waiting, self._answers = directory / WAITING, directory / ANSWERS
        self._keep = keep
        for each in (self._waiting, self._answers):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ids(self) -> list[str]:
        """Who waits, the next one first."""
        found = []
        for path in self._waiting.glob("*.review"):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path.stem))
        return [name for _, name in sorted(found) if _ID.match(name)]

    def content(self, name: str) -> bytes:
        """A submission as it came."""
        return self._path(name).read_bytes()

    def size(self, name: str) -> int:
        """Its bytes."""
        return self._path(name).stat().st_size

    def tried(self, name: str) -> int:
        """How often it has been begun, this time included."""
        path = self._waiting / f"{name}.tries"
        try:
            count = int(path.read_text()) + 1
        except (OSError, ValueError):
            count = 1
        self._write(path, str(count).encode())
        return count

    def untried(self, name: str) -> None:
        """The service was told to stop in the middle: that is not the review's fault."""
        with contextlib.suppress(OSError):
            (self._waiting / f"{name}.tries").unlink(missing_ok=True)

    def answer(self, answer: Answer) -> None:
        """Keep an answer, durably, and let its submission go.

        :raises OSError: the disk is full; the submission waits on
        """
        self._write(self._answers / f"{answer.id}.json", msgspec.json.encode(answer))
        self._path(answer.id).unlink(missing_ok=True)
        self.untried(answer.id)
        old = sorted(self._answers.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in old[: max(0, len(old) - self._keep)]:
            path.unlink(missing_ok=True)

    def known(self, name: str) -> Answer | None:
        """The answer that is kept, if it can be read."""
        try:
            return read((self._answers / f"{name}.json").read_bytes())
        except (OSError, ReviewError):
            return None

    def _path(self, name: str) -> Path:
        return self._waiting / f"{name}.review"

    def _write(self, path: Path, content: bytes) -> None:
        staged = path.with_name(f".{path.name}")
        try:
            with staged.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(path)
        except OSError:
            staged.unlink(missing_ok=True)
            raise
        held = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(held)
        finally:
            os.close(held)


def read(content: bytes) -> Answer:
    """An answer from its bytes.

    :raises ReviewError: it is none
    """
    try:
        return msgspec.json.decode(content, type=Answer)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReviewError(f"the Hub's answer cannot be read ({error}); is it of another version?") from None
