"""What a run of the pipeline is about: one commit, without changes beside it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.controller.programs import require
from pipeline.errors import PipelineError

_SHOWN = 3


@dataclass(frozen=True)
class Source:
    """A commit and the digest that git gives to its files."""

    commit: str
    tree: str


def source_of(root: Path) -> Source:
    """Return what is checked out. PipelineError outside git, before the first commit, or with changes.

    MissingProgramError without git.
    """
    changed = _git(root, "status", "--porcelain", "--untracked-files=normal").splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:_SHOWN])
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise PipelineError(
            f"a record is about a commit, and there are changes beside it ({names}{more}): "
            "commit or stash them"
        )
    return Source(_git(root, "rev-parse", "HEAD"), _git(root, "rev-parse", "HEAD^{tree}"))


def _git(root: Path, *arguments: str) -> str:
    answer = subprocess.run(
        [require("git"), "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if answer.returncode != 0:
        said = answer.stderr.strip().splitlines()
        raise PipelineError(
            f"git {arguments[0]} failed in {root} ({said[-1] if said else 'no reason given'}): "
            "run the pipeline in a clone made by git"
        )
    return answer.stdout.rstrip("\n")
