"""The record of a review: the decision, and what making it took. Kept below `reports/review/`."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.foreign_text import shown
from mt5crs.review import sarif
from mt5crs.review.decision import Decision
from mt5crs.review.external_gate import Told
from mt5crs.review.model import Finding, ReviewError

DIRECTORY: Final = Path("reports/review")
SHOWN: Final = 5
"""Findings that are shown at most; the rest is counted here and listed in the record."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One review."""

    decision: Decision
    tool: str
    began: str
    """UTC, RFC 3339."""
    seconds: float
    lines: int
    """Lines that were added or changed."""
    external: Told | None = None
    programs_by: str = ""
    """Who ran the programs of gate 1, when it was not the machine that judged."""


def write(record: Record, directory: Path) -> Path:
    """Write the record and its SARIF document, each whole or not at all; return the record's path.

    :raises ReviewError: the directory cannot be written
    """
    place(directory)
    base = f"-{record.decision.base[:12]}" if record.decision.base else ""
    path = directory / f"{record.decision.tree[:12]}{base}.json"
    body = msgspec.json.format(msgspec.json.encode(record, order="sorted")) + b"\n"
    found = sarif.document(record.decision.findings, record.tool)
    whole(path.with_suffix(".sarif"), msgspec.json.encode(found))
    whole(path, body)
    return path


def place(directory: Path) -> None:
    """Make the directory for records, unless it is there.

    One that it makes is no part of the tree: else the next review would be of this one's record too.

    :raises ReviewError: it cannot be written
    """
    try:
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            whole(directory / ".gitignore", b"*\n")
        reason = "" if os.access(directory, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise ReviewError(f"{directory} cannot be written ({reason}); name another directory with --out")


def read(path: Path) -> Record:
    """Read a record.

    :raises ReviewError: there is none, or it is damaged
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except OSError as error:
        raise ReviewError(
            f"{path} cannot be read ({error.strerror}); make it with `mt5crs review run`"
        ) from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ReviewError(
            f"{path} is no record of a review ({error}); make it with `mt5crs review run`"
        ) from None


def digest(decision: Decision) -> str:
    """SHA-256 of the decision; the same tree, base, policy and answers always have the same."""
    return hashlib.sha256(msgspec.json.encode(decision, order="sorted")).hexdigest()


def whole(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def lines(record: Record) -> list[str]:
    """What people are told: the result and why, the score by part, the worst findings."""
    decision = record.decision
    parts = ", ".join(f"{name.replace('_', ' ')} {points}" for name, points in decision.score.parts.items())
    told = [
        f"{decision.result}: tree {decision.tree[:12]}, {len(decision.files)} files, {record.seconds:.1f} s"
    ]
    told += [f"  {reason}" for reason in decision.reasons]
    told.append(f"  score {decision.score.total} ({parts})")
    told += [f"  {program}: {state}" for program, state in decision.programs.items() if state != "ran"]
    if record.programs_by:
        told.append(f"  the programs of gate 1 were run by {shown(record.programs_by)}")
    unasked = decision.external == "passed" and decision.mode == "offline"
    told.append(
        f"  external review: {decision.external} ({'nothing to ask about' if unasked else decision.mode})"
    )
    told += [f"    {reason}" for reason in decision.external_reasons]
    if record.external is not None:
        told += [f"    {each}" for each in routes(record.external)]
        told += [f"    {each}" for each in (record.external.without, figures(record.external)) if each]
    for number, finding in enumerate(decision.findings[:SHOWN], 1):
        told.append(f"  {number}. {line(finding)}")
    more = len(decision.findings) - SHOWN
    if more > 0:
        told.append(f"  and {more} more: mt5crs review show --all {decision.tree[:12]}")
    return told


def line(finding: Finding) -> str:
    """A finding in one line, whatever its file is called."""
    place = f"{finding.path}:{finding.line}" if finding.line else finding.path
    return shown(f"{finding.severity} {finding.id} {place} {finding.rule}: {finding.message}")


def routes(told: Told) -> list[str]:
    """Which model is asked about how many files, and why, a line each; which file is in the record."""
    counted: dict[str, Counter[str]] = {}
    for each in told.routes.values():
        model, _, why = each.partition(": ")
        counted.setdefault(model, Counter())[why] += 1
    return [
        f"{model}: " + ", ".join(f"{count} ({shown(why)})" for why, count in counted[model].most_common())
        for model in ("strong", "medium", "cheap")
        if model in counted
    ]


def figures(told: Told) -> str:
    """What the external review took, in one line that a program can read too."""
    pairs = msgspec.to_builtins(told.figures).items()
    return " ".join(f"{name}={value}" for name, value in pairs)
