"""What makes the audit log a chain, and what is wrong with one. Pure: bytes in, findings out.

A record is one line of JSON. It names its number and the SHA-256 of the line before it, so nothing can be
altered, taken out, added or moved without a break, except at the end. The end is told by the head, and by the
heads that other hosts have seen (witnesses).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = 1
NEWLINE = b"\n"
NOTHING = "0" * 64
"""What the first record names as the hash of the one before."""
SNAPSHOT = "snapshot"
"""Field of a record with the `n` and `sha256` of the line of config_changes.jsonl that it vouches for."""


@dataclass(frozen=True)
class Head:
    """The end of a log: which log, how many records, the hash of the last one, bytes of both files."""

    log: str
    n: int
    hash: str
    size: int = 0
    snapshots: int = 0
    """Lines of config_changes.jsonl."""
    snapshots_size: int = 0


@dataclass(frozen=True)
class Witness:
    """That a host has seen the head `n` with this hash, at its own time."""

    host: str
    log: str
    n: int
    hash: str
    at: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: which record (0: the log as a whole), and what about it."""

    n: int
    what: str


@dataclass(frozen=True)
class Verified:
    """What a log is worth: how many records, up to which one others have seen it, all that is wrong."""

    records: int
    witnessed: int
    witnesses: tuple[str, ...]
    findings: tuple[Finding, ...]


def digest(line: bytes) -> str:
    """The hash of a line, without the end of the line."""
    return hashlib.sha256(line).hexdigest()


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as it is written, without the end of the line."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None when it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and isinstance(found.get("n"), int) and isinstance(found.get("id"), str)
    return found if whole and line_of(found) == line else None


def records_of(content: bytes) -> list[dict[str, Any]]:
    """The readable records of a log, in its order."""
    return [record for line in content.split(b"\n") if (record := parse(line)) is not None]


def verify(
    content: bytes, head: Head | None, snapshots: bytes, witnesses: Sequence[Witness] = ()
) -> Verified:
    """Look at every byte of a log.

    :param content: records.jsonl
    :param head: what head.json says; None: there is none, or it cannot be read
    :param snapshots: config_changes.jsonl
    :param witnesses: heads that other hosts have seen
    """
    lines, findings = _lines(content, "the last record")
    hashes = [digest(line) for line in lines]
    parsed = [parse(line) for line in lines]
    findings += _chain(parsed, hashes)
    log = next((str(record["log"]) for record in parsed if record and record.get("log")), "")
    findings += _head(head, log, hashes, len(content), snapshots)
    findings += _snapshots(parsed, snapshots)
    findings += _witnessed(witnesses, log, hashes)
    agreed = [seen for seen in witnesses if seen.log == log and _agrees(seen, hashes)]
    up_to = max((seen.n for seen in agreed), default=0)
    names = tuple(sorted({seen.host for seen in agreed if seen.n == up_to}))
    return Verified(len(lines), up_to, names, tuple(dict.fromkeys(findings)))


def _lines(content: bytes, what: str) -> tuple[list[bytes], list[Finding]]:
    if not content:
        return [], []
    whole = content.endswith(b"\n")
    lines = content[:-1].split(b"\n") if whole else content.split(b"\n")
    torn = [] if whole else [Finding(len(lines), f"{what} has no end of line: cut off, or not written whole")]
    return lines, torn


def _chain(parsed: Sequence[Mapping[str, Any] | None], hashes: Sequence[str]) -> list[Finding]:
    findings: list[Finding] = []
    seen: dict[str, int] = {}
    log = ""
    for n, record in enumerate(parsed, start=1):
        if record is None:
            findings.append(Finding(n, "is no record: altered, or written by something else"))
            continue
        if record["n"] != n:
            findings.append(Finding(n, f"says that it is record {record['n']}: missing, added or moved ones"))
        if record.get("before") != (hashes[n - 2] if n > 1 else NOTHING):
            findings.append(
                Finding(n, "does not follow the record before it: one of the two was altered or moved")
            )
        log = log or str(record.get("log"))
        if record.get("log") != log:
            findings.append(Finding(n, "belongs to another log"))
        if record.get("format") != FORMAT:
            findings.append(Finding(n, f"has format {record.get('format')}, this is for {FORMAT}"))
        if record["id"] in seen:
            findings.append(Finding(n, f"has the id of record {seen[record['id']]}"))
        seen.setdefault(record["id"], n)
    return findings


def _head(
    head: Head | None, log: str, hashes: Sequence[str], size: int, snapshots: bytes
) -> Iterator[Finding]:
    if head is None:
        if hashes:
            yield Finding(0, "the head (head.json) is missing or unreadable")
        return
    last = hashes[-1] if hashes else NOTHING
    if (head.log, head.n, head.hash, head.size) != (log, len(hashes), last, size):
        yield Finding(
            0,
            f"the head says {head.n} records and {head.size} bytes, there are {len(hashes)} and {size}, "
            "or the last one is another one",
        )
    if (head.snapshots, head.snapshots_size) != (snapshots.count(NEWLINE), len(snapshots)):
        yield Finding(
            0,
            f"config_changes.jsonl has {snapshots.count(NEWLINE)} lines and {len(snapshots)} bytes, the head "
            f"says {head.snapshots} and {head.snapshots_size}",
        )


def _snapshots(parsed: Sequence[Mapping[str, Any] | None], snapshots: bytes) -> list[Finding]:
    lines, findings = _lines(snapshots, "the last snapshot")
    named: dict[int, tuple[int, object]] = {}
    for n, record in enumerate(parsed, start=1):
        of = (record or {}).get(SNAPSHOT)
        if isinstance(of, Mapping) and isinstance(of.get("n"), int):
            named[of["n"]] = (n, of.get("sha256"))
    for number, line in enumerate(lines, start=1):
        if number not in named:
            findings.append(Finding(0, f"snapshot {number} is vouched for by no record"))
        elif named[number][1] != digest(line):
            findings.append(Finding(named[number][0], f"its snapshot {number} was altered"))
    findings += [
        Finding(n, f"its snapshot {number} is missing")
        for number, (n, _) in named.items()
        if not 1 <= number <= len(lines)
    ]
    return findings


def _agrees(seen: Witness, hashes: Sequence[str]) -> bool:
    return 1 <= seen.n <= len(hashes) and hashes[seen.n - 1] == seen.hash


def _witnessed(witnesses: Iterable[Witness], log: str, hashes: Sequence[str]) -> Iterator[Finding]:
    """What other hosts have seen and is not so here; a finding names all that have seen the same."""
    seen: dict[tuple[str, int, str], list[Witness]] = {}
    for one in witnesses:
        seen.setdefault((one.log, one.n, one.hash), []).append(one)
    others: dict[str, tuple[int, list[Witness]]] = {}
    for (of, n, _), by in seen.items():
        if of != log:
            others[of] = max(others.get(of, (0, by)), (n, by), key=lambda end: end[0])
        elif n > len(hashes):
            yield Finding(n, f"is missing: {_by(by)}")
        elif not _agrees(by[0], hashes):
            yield Finding(n, f"is another one than {_by(by)}")
    for of, (n, by) in others.items():
        yield Finding(0, f"there was another one, {of[:8]} with {n} records, which is not here: {_by(by)}")


def _by(witnesses: Sequence[Witness]) -> str:
    hosts = sorted({one.host for one in witnesses})
    when = min((one.at for one in witnesses if one.at), default="")
    return f"{', '.join(hosts)} saw it" + (f" at {when}" if when else "")
