"""A small project of its own, under git, with a release key."""

import subprocess
from pathlib import Path

import pytest

from deploy.controller.programs import require


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit; `reports/` and the key are ignored, as in the real one."""
    monkeypatch.delenv("MT5CRS_SIGNING_KEY", raising=False)
    root = tmp_path / "project"
    root.mkdir()
    (root / ".gitignore").write_text("/reports/\n/.keys/\n/dist/\n")
    (root / "a.txt").write_text("a\n")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run([require("git"), "-C", str(root), *command], check=True, timeout=30)
    return root
