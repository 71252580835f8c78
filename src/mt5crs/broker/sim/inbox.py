"""Commands to a running simulated broker: JSON files in a directory, answered by files beside them."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

_QUESTION, _ANSWER = ".command", ".answer"


class Inbox:
    """The broker's end of the directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def pending(self) -> list[Path]:
        """Commands not yet obeyed, oldest name first; none while there is no descriptor left to look with."""
        try:
            with os.scandir(self._directory) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(_QUESTION))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return []
        return [self._directory / name for name in names]

    def answer(self, question: Path, obey: Callable[[bytes], dict[str, Any]]) -> None:
        """Obey one command and write what came of it."""
        try:
            text = question.read_bytes()
        except FileNotFoundError:
            return
        question.unlink()  # first: a command that hangs the broker must not be obeyed again after a restart
        try:
            answer = {"ok": True, **obey(text)}
        except (ValueError, msgspec.ValidationError, msgspec.DecodeError) as error:
            answer = {"ok": False, "error": str(error)}
        _write(question.with_suffix(_ANSWER), json.dumps(answer))


def ask(directory: Path, command: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
    """Give a command to the broker whose inbox this is and wait for the answer.

    Raises TimeoutError when nobody answers (broker not running, or SIM_FAULTS not set) and ValueError when
    the broker refuses.
    """
    name = f"{time.time_ns():020d}-{os.getpid()}"
    question, answer = directory / (name + _QUESTION), directory / (name + _ANSWER)
    _write(question, json.dumps(command))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer.exists():
            result: dict[str, Any] = json.loads(answer.read_text())
            answer.unlink()
            if not result.pop("ok"):
                raise ValueError(result["error"])
            return result
        time.sleep(0.01)
    question.unlink(missing_ok=True)
    raise TimeoutError(
        f"no answer in {directory} within {timeout_s} s; is the gateway running with GATEWAY_BACKEND=sim and "
        "SIM_FAULTS=true?"
    )


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
