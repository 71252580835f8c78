"""A file that goes to a host through standard input is there complete, or not at all."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from deploy.remote.upload import script

CONTENT = bytes(range(256)) * 40


def write(to: Path, content: bytes, size: int) -> int:
    programs = to.parent / "programs"
    programs.mkdir()
    (programs / "chown").write_text("#!/bin/sh\n")  # only root may give a file to root
    (programs / "chown").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", script(str(to), size)], input=content, env=environment, check=False
    ).returncode


def test_complete(tmp_path: Path) -> None:
    to = tmp_path / "bundle of mine.tar"
    assert write(to, CONTENT, len(CONTENT)) == 0
    assert to.read_bytes() == CONTENT
    assert stat.S_IMODE(to.stat().st_mode) == 0o644


@pytest.mark.parametrize("came", [0, 1, len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_connection_that_is_lost_leaves_what_was_there(tmp_path: Path, came: int) -> None:
    to = tmp_path / "bundle.tar"
    to.write_bytes(b"before")
    assert write(to, (CONTENT + b"?")[:came], len(CONTENT)) != 0
    assert to.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.tar", "programs"]
