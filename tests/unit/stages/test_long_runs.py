"""A test that every run leaves out says why, and the list says it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
REASONED = """
import pytest

@pytest.mark.slow(reason="another one tries it")
def test_repeats():
    raise AssertionError("the list runs nothing")
"""


def collect(directory: Path, tests: str, *words: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_them.py").write_text(tests)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = slow(reason)\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.long_runs", "-p", "no:cacheprovider", "-q", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_list_names_the_test_under_its_reason(tmp_path: Path) -> None:
    listed = collect(tmp_path, REASONED, "--long-list", "-m", "slow")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "another one tries it:\n  test_them.py::test_repeats" in listed.stdout


def test_without_a_reason_nothing_is_collected(tmp_path: Path) -> None:
    refused = collect(tmp_path, REASONED.replace('slow(reason="another one tries it")', "slow"))
    assert refused.returncode == 4
    assert "say why every run may leave it out" in refused.stderr
    assert "test_them.py::test_repeats" in refused.stderr
