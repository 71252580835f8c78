"""A small repository of git to review."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Commit = Callable[[dict[str, str | bytes | None]], str]


def git(repository: Path, *arguments: str) -> str:
    told = subprocess.run(
        ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        check=True,
        capture_output=True,
    )
    return told.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "repository"
    directory.mkdir()
    git(directory, "init", "--quiet")
    return directory


@pytest.fixture
def commit(repository: Path) -> Commit:
    """Write files (None removes one), commit them, return the commit."""

    def made(files: dict[str, str | bytes | None]) -> str:
        for name, content in files.items():
            path = repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content)
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--allow-empty", "-m", "x")
        return git(repository, "rev-parse", "HEAD")

    return made
