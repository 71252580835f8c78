"""What the Hub does for its queue of reviews: takes a submission in, says how far one is.

Runs there with the system's own Python and nothing but its standard library; begun as root, it goes on with
the rights of the service, so that nothing in the service's directory can lead it elsewhere. Prints one JSON
object; a failure is a sentence on standard error and exit status 1.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import sys
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/mt5crs/review")
USER = "mt5crs"
_ID = re.compile(r"[0-9a-f]{16}")
_SPARE = 64 * 1024 * 1024
"""Bytes that stay free on the disk."""


class RefusedError(Exception):
    """It is not done; the text says why and what to do."""


def become(user: str) -> None:
    """Go on with the rights of the service."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


def put(name: str, most: int, content: bytes) -> dict[str, Any]:
    """Take a submission in, unless it waits already or has a final answer."""
    waiting = _directory("waiting")
    target = waiting / f"{_checked(name)}.review"
    answer = _answer(name)
    if answer is not None and _final(answer):
        return {"state": "answered"}
    if target.exists():
        return {"state": "waiting", "ahead": _ahead(waiting, name)}
    there = len(list(waiting.glob("*.review")))
    if there >= most:
        raise RefusedError(
            f"{there} submissions wait, and no more may (review_queue_most); try again when some are answered"
        )
    if shutil.disk_usage(waiting).free < len(content) + _SPARE:
        raise RefusedError(f"the disk of {waiting} is full; make room there, nothing was taken in")
    staged = waiting / f".{name}.{os.getpid()}.new"
    try:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (STATE / "answers" / f"{name}.json").unlink(missing_ok=True)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    held = os.open(waiting, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
    return {"state": "taken", "ahead": _ahead(waiting, name)}


def look(name: str) -> dict[str, Any]:
    """How far a submission is (by the beginning of its id; empty: the newest answer)."""
    waiting, answers = _directory("waiting"), _directory("answers")
    if not re.fullmatch(r"[0-9a-f]{0,16}", name):
        raise RefusedError(f"{name!r} is no id of a review")
    there = sorted(answers.glob(f"{name}*.json"), key=lambda path: path.stat().st_mtime_ns)
    ids = sorted(path.stem for path in waiting.glob("*.review"))
    if name and any(each.startswith(name) for each in ids):
        one = next(each for each in ids if each.startswith(name))
        return {"state": "waiting", "id": one, "ahead": _ahead(waiting, one)}
    if not there:
        return {"state": "unknown", "waiting": ids}
    return {"state": "answered", "answer": base64.b64encode(there[-1].read_bytes()).decode(), "waiting": ids}


def _directory(name: str) -> Path:
    path = STATE / name
    if not path.is_dir():
        raise RefusedError(f"{path} is not there; deploy the review to this host first (--tags review)")
    return path


def _ahead(waiting: Path, name: str) -> int:
    """How many come before it."""
    mine = (waiting / f"{name}.review").stat().st_mtime_ns
    return sum(path.stat().st_mtime_ns < mine for path in waiting.glob("*.review"))


def _answer(name: str) -> dict[str, Any] | None:
    try:
        found = json.loads((STATE / "answers" / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _final(answer: dict[str, Any]) -> bool:
    """Whether asking again could bring nothing else (as `mt5crs.review.queue.Answer.final`)."""
    decision = (answer.get("record") or {}).get("decision") or {}
    return decision.get("result") == "PASSED" or decision.get("external") in ("passed", "failed")


def _checked(name: str) -> str:
    if not _ID.fullmatch(name):
        raise RefusedError(f"{name!r} is no id of a review")
    return name


def main(arguments: list[str]) -> int:
    """Do what the first argument names; a submission comes on standard input."""
    verb, *rest = arguments
    try:
        content = base64.b64decode(sys.stdin.read()) if verb == "put" else b""
        become(USER)
        told = put(rest[0], int(rest[1]), content) if verb == "put" else look(rest[0])
    except (RefusedError, OSError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
