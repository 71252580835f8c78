"""What the documentation points at exists, and what is generated is current."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]
TREES = (
    "deploy",
    "docs",
    "images",
    "lab",
    "pipeline",
    "plugins",
    "profiles",
    "roles",
    "src",
    "templates",
    "tests",
)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    """Names with a blank, a star or dots stand for several files."""
    if page.name == "CHANGELOG.md":
        pytest.skip("tells of what was")
    named = re.findall(rf"`((?:{'|'.join(TREES)})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_tests_that_the_safety_page_names_exist() -> None:
    files = list((PROJECT / "tests").rglob("*.py"))
    names = {path.name for path in files} | {path.relative_to(PROJECT).as_posix() for path in files}
    for path in files:
        names |= set(re.findall(r"^(?: {4})?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    quoted = re.findall(r"`([^`]+)`", (PROJECT / "docs" / "safety.md").read_text(encoding="utf-8"))
    named = [name for name in quoted if re.match(r"test_|tests/.*\.py|_\d\d_", name)]
    assert len(named) > 50
    # `_04_*` goes on from the `test_scenario_03_*` before it; a star or dots stand for any ending
    full = [re.sub(r"^_(?=\d)", "test_scenario_", name).rstrip("*…") for name in named]
    assert [name for name in full if not any(each.startswith(name) for each in names)] == []


def test_make_targets_that_are_named_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, flags=re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"`make ([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8"))
    }
    assert named
    assert named - targets == set()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse of Python 3.13 sets its help otherwise")
def test_command_reference_is_current() -> None:
    # In a process of its own: click keeps the words for help of a command as it was first called.
    check = [sys.executable, "-m", "deploy.command_reference", "--check"]
    done = subprocess.run(check, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"make docs\n{done.stdout}{done.stderr}"
