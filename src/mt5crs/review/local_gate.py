"""Gate 1: everything that can be found out here, from the tree alone, the same every time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.review import programs, rules, text_rules
from mt5crs.review.model import Finding, Part, Severity, in_order
from mt5crs.review.programs import Outcome
from mt5crs.review.tree import File, Tree, write

AT_A_TIME: Final = 2

_KINDS: Final[dict[str, tuple[str, Severity, Part, str]]] = {
    "link": ("MT5CRS201", "P2", "security", "a symbolic link: what it names is not reviewed"),
    "submodule": ("MT5CRS202", "P1", "security", "a submodule: its content is not reviewed"),
    "huge": ("MT5CRS203", "P1", "security", "the file is too large to be reviewed; ship it another way"),
    "binary": ("MT5CRS204", "P2", "security", "a binary file: nobody can review it here"),
    "encoding": ("MT5CRS205", "P2", "quality", "the text is not UTF-8, so rules cannot read it; convert it"),
}
_UNREAD: Final[tuple[str, Severity, Part, str]] = (
    "MT5CRS207",
    "P0",
    "security",
    "a program may read it, and the rules cannot: its text is not UTF-8; convert it",
)
_KNOWN_LINKS: Final = {
    "templates/monitoring/runbook.md": "../../docs/runbook.md",
    "profiles": "src/mt5crs/phases/profiles",
}
"""Links to what is reviewed itself, by the rules of its own place, and where they must lead."""


class LocalResult(msgspec.Struct, frozen=True, kw_only=True):
    """What gate 1 found. It is complete if every program that was needed has looked."""

    findings: list[Finding]
    programs: list[Outcome]

    @property
    def missing(self) -> list[str]:
        """Sentences about programs that have not looked."""
        return [each.detail for each in self.programs if each.state in ("missing", "failed")]


def judge(
    tree: Tree, files: Sequence[File], cache: Path, outcomes: Sequence[Outcome] | None = None
) -> LocalResult:
    """Look at `files` of `tree`. `cache` keeps what programs remember between runs.

    `outcomes`: what the programs found elsewhere, for a machine that has none. Our own rules look here.
    """
    paths = [file.path for file in files if file.kind == "text"]
    if outcomes is not None:
        return _joined(files, paths, list(outcomes))
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mt5crs-review-") as scratch:
        copy = Path(scratch).resolve() / "tree"
        copy.mkdir()
        write(tree, copy)
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            asked = pool.map(partial(programs.ask, paths=paths, copy=copy, cache=cache), programs.PROGRAMS)
            made = list(asked)
    return _joined(files, paths, made)


def _joined(files: Sequence[File], paths: Sequence[str], outcomes: list[Outcome]) -> LocalResult:
    own = [*_lost(files), *(finding for file in files for finding in own_findings(file))]
    changed = set(paths)
    found = [finding for outcome in outcomes for finding in outcome.findings]
    # What a program says of files that did not change was there before, or follows from this change (mypy).
    found = [finding for finding in found if finding.path in changed or finding.source == "mypy"]
    return LocalResult(findings=in_order([*own, *found]), programs=outcomes)


def _lost(files: Sequence[File]) -> Iterator[Finding]:
    """Tests that are gone and were not moved as they were: nobody else is shown what they guarded."""
    moved = {file.text for file in files if file.before is None}
    for file in files:
        lost = file.kind == "deleted" and file.path.startswith("tests/") and file.before is not None
        if lost and file.before not in moved:
            yield Finding(
                rule="MT5CRS206",
                severity="P3",
                part="quality",
                path=file.path,
                line=0,
                message="a test is gone; see that what it guarded is guarded elsewhere",
                source="files",
            )


def own_findings(file: File) -> Iterator[Finding]:
    """What our own rules find in one file."""
    if file.kind in ("encoding", "binary") and file.path.endswith(text_rules.CODE):
        rule, severity, part, message = _UNREAD
        yield Finding(
            rule=rule, severity=severity, part=part, path=file.path, line=0, message=message, source="files"
        )
    elif file.kind in _KINDS and not (file.kind == "link" and _KNOWN_LINKS.get(file.path) == file.text):
        rule, severity, part, message = _KINDS[file.kind]
        yield Finding(
            rule=rule, severity=severity, part=part, path=file.path, line=0, message=message, source="files"
        )
    if file.kind == "text":
        yield from text_rules.check(file.path, file.text)
        if file.path.endswith(".py"):
            yield from rules.check(file.path, file.text)
