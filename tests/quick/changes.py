"""What has changed here: against the merge base with upstream, and what is not committed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

UPSTREAM = ("upstream/main", "origin/main")
"""What a branch is compared with: the first that there is."""


class ChangesError(Exception):
    """What has changed cannot be found out; the text says why and what to do."""


@dataclass(frozen=True)
class Changes:
    """Paths that were added, changed or removed, and what they were compared with."""

    paths: tuple[str, ...]
    since: str
    files: tuple[str, ...]
    """All files there are now, ignored ones left out."""


def changes(root: Path, base: str | None = None) -> Changes:
    """Compare the working tree with `base`, else with where the branch left upstream.

    :raises ChangesError: no repository, or no such base
    """
    if _git(root, "rev-parse", "--git-dir") is None:
        raise ChangesError(
            "this is no git repository, so nothing tells what has changed: run `make lint unit`"
        )
    compared, since = _base(root, base)
    changed = _paths(root, "diff", "--name-only", "--no-renames", "-z", compared, "--")
    untracked = _paths(root, "ls-files", "--others", "--exclude-standard", "-z")
    files = {*_paths(root, "ls-files", "-z"), *untracked}
    return Changes(
        tuple(sorted({*changed, *untracked})),
        since,
        tuple(sorted(path for path in files if (root / path).is_file())),
    )


def _base(root: Path, base: str | None) -> tuple[str, str]:
    """The commit to compare with, and what to call it."""
    if base:
        commit = _git(root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
        if commit is None:
            raise ChangesError(
                f"BASE={base} is no commit here: name one that `git log` shows, or fetch it first (git fetch)"
            )
        names = [(base, commit)]
    else:
        found = (
            (name, _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")) for name in UPSTREAM
        )
        names = [(name, commit) for name, commit in found if commit]
    for name, commit in names[:1]:
        shared = _git(root, "merge-base", commit, "HEAD")
        # A shallow clone may not know where the branch left: then all that differs from upstream has changed.
        return (
            (shared, f"since {name}") if shared else (commit, f"against {name}, no merge base in this clone")
        )
    if _git(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise ChangesError("there is no commit yet to compare with: run `make lint unit`")
    return "HEAD", f"not committed; {UPSTREAM[0]} is not here, BASE=<commit> compares with more"


def _paths(root: Path, *arguments: str) -> list[str]:
    told = _git(root, *arguments)
    if told is None:
        raise ChangesError(
            f"`git {' '.join(arguments)}` failed in {root}: run it to see why, or `make lint unit`"
        )
    return [path for path in told.split("\0") if path]


def _git(root: Path, *arguments: str) -> str | None:
    """What git said; None when it refused."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        raise ChangesError("git is not installed: apt-get install git, or run `make lint unit`") from None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
