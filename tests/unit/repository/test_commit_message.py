"""What the commit-msg hook lets through, and what it says when it refuses."""

import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parents[3] / ".ci" / "commit-message"


def checked(message: str, directory: Path) -> subprocess.CompletedProcess[str]:
    file = directory / "COMMIT_EDITMSG"
    file.write_text(message, encoding="utf-8")
    return subprocess.run([CHECK, file], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    "message",
    [
        "Orders are numbered\n",
        "x" * 72 + "\n",
        "é" * 72 + "\n",  # 72 characters, 144 bytes
        "Merge branch 'main' of ../other\n",
        "fixup! fixup! " + "x" * 72 + "\n",  # what it will be part of is good
        "A switch is wiped\n\nA body may have lines of any length. " + "x" * 100 + "\n",
        "# a template's comment\n\nOrders are numbered\n# " + "x" * 100 + "\n",
        "Orders are numbered\n# ------------------------ >8 ------------------------\ndiff --git a b\n",
    ],
)
def test_let_through(message: str, tmp_path: Path) -> None:
    answer = checked(message, tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("x" * 73 + "\n", "73 characters, at most 72"),
        ("\n\n" + "x" * 73 + "\n", "73 characters, at most 72"),
        ("wip\n", "the work is not done"),
        ("WIP: orders are numbered\n", "the work is not done"),
        ("[wip] orders are numbered\n", "the work is not done"),
        ("# nothing but comments\n", "it is empty"),
        ("Orders are\nnumbered\n", "second line is not empty"),
    ],
)
def test_refused_with_the_reason(message: str, reason: str, tmp_path: Path) -> None:
    answer = checked(message, tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith("commit message refused: ")
    assert reason in answer.stderr
