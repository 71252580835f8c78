"""The hooks of a commit run what `make lint` runs, with the programs that uv.lock pins."""

import re
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[3]


def hooks() -> list[dict[str, Any]]:
    """Every hook of .pre-commit-config.yaml."""
    stated = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in stated["repos"]] == ["local"], (
        "others pin versions of their own"
    )
    found: list[dict[str, Any]] = stated["repos"][0]["hooks"]
    return found


def test_every_check_of_make_lint_has_its_hook() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    # Without the dot at the end: all files; a hook names those of the commit.
    checks = [
        line.removesuffix(" .") for line in re.findall(r"^\t@?\$\(RUN\) (.+)$", recipe[1], re.MULTILINE)
    ]
    assert len(checks) == len(recipe[1].splitlines())
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks()]
    assert [check for check in checks if not any(entry.startswith(check) for entry in entries)] == []


def test_no_hook_takes_a_program_from_elsewhere() -> None:
    for hook in hooks():
        assert hook["language"] == "system", hook["id"]
        assert hook["entry"].startswith((".venv/bin/", ".ci/")), hook["id"]
