"""What gate 1 of the review says of the sources: bandit, zizmor, and the review's own rules."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from mt5crs.review import local_gate, programs
from mt5crs.review.making import cache_directory
from mt5crs.review.tree import changed, tree_of, write
from pipeline.scans.model import Found, Scan

NAME: Final = "review rules, bandit, zizmor"
ASKED: Final = ("bandit", "zizmor")
"""The other programs of gate 1 are in `make lint` as they are."""
_FAILS: Final = ("P0", "P1")


def scan(root: Path) -> Scan:
    """Ask them about the commit. Findings of severity P0 and P1 count; the rest is the review's to weigh.

    ReviewError when git cannot be asked.
    """
    tree = tree_of(root, "HEAD")
    files = changed(tree, None)
    paths = [file.path for file in files if file.kind == "text"]
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mt5crs-scan-") as scratch:
        copy = Path(scratch).resolve() / "tree"
        copy.mkdir()
        write(tree, copy)
        outcomes = [
            programs.ask(program, paths, copy, cache)
            for program in programs.PROGRAMS
            if program.name in ASKED
        ]
    result = local_gate.judge(tree, files, cache, outcomes)
    return Scan(
        name=NAME,
        looked_at=len(files),
        what="files",
        found=[
            Found(key=f"{each.path}:{each.rule}", detail=f"line {each.line}: {each.message}")
            for each in result.findings
            if each.severity in _FAILS
        ],
        not_checked="; ".join(result.missing),
    )
