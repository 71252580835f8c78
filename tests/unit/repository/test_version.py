"""The version is stated in pyproject.toml; all else derives from it, or is compared with it here."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomllib

from mt5crs.version import product_version

PROJECT = Path(__file__).resolve().parents[3]
STATED = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
SHIPPED = (
    "deploy",
    "group_vars",
    "inventory",
    "lab",
    "molecule",
    "plugins",
    "roles",
    "src",
    "templates",
    "windows",
)


def test_no_other_place_states_it() -> None:
    stated = re.compile(rf"(?<![\d.]){re.escape(STATED)}(?![\d.]*\d)")
    files = [path for top in SHIPPED for path in (PROJECT / top).rglob("*") if path.is_file()]
    # A developer's copy of Python for Windows and what Python compiled are not ours.
    ours = [path for path in files if path.suffix not in (".pyc", ".zip")]
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in ours}
    assert len(texts) > 200
    assert [str(path.relative_to(PROJECT)) for path, text in texts.items() if stated.search(text)] == []


def test_the_lock_agrees() -> None:
    packages: list[dict[str, Any]] = tomllib.loads((PROJECT / "uv.lock").read_text(encoding="utf-8"))[
        "package"
    ]
    assert [each["version"] for each in packages if each["name"] == "mt5crs"] == [STATED], "run `uv lock`"


def test_the_installed_programs_say_it() -> None:
    assert product_version() == version("mt5crs") == STATED


def test_the_changelog_has_a_dated_section_of_it() -> None:
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(STATED)}\]? - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)
