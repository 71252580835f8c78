"""What `make quick` takes for changed, and which checks and tests it chooses for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.quick import __main__ as quick
from tests.quick.changes import Changes, ChangesError, changes
from tests.quick.dependencies import distances, graph
from tests.quick.plan import ALWAYS, LIMIT_S, Selection, choose_checks, choose_tests
from tests.quick.proof import opened
from tests.quick.seconds import SECONDS

ROOT = Path(__file__).resolve().parents[3]
FILES = {
    "src/app/__init__.py": "",
    "src/app/core.py": "def one() -> int:\n    return 1\n",
    "src/app/late.py": "def two():\n    from app import core\n    return core\n",
    "src/app/server/__init__.py": "",
    "src/app/server/__main__.py": "from ..core import one\n",
    "src/app/plugged.py": "",
    "src/app/loading.py": "from importlib.metadata import entry_points\nentry_points()\n",
    "src/app/told.py": 'print("run `python -m deploy.keys`, then edit roles/web/main.yml")\n',
    "src/app/unused.py": "",
    "deploy/__init__.py": "from pathlib import Path\nTEMPLATES = Path('templates')\n",
    "deploy/keys.py": "",
    "deploy.py": "",
    "templates/env/app.env.j2": "x",
    "roles/web/main.yml": "- shell: python -m app.server",
    "windows/prepare.ps1": "",
    "docs/page.md": "see src/app/core.py",
    "pyproject.toml": '[project.entry-points."app.plugins"]\na = "app.plugged:A"\n[tool]\nx = "app.late"\n',
    ".github/workflows/ci.yml": "",
    "tests/conftest.py": "",
    "tests/unit/server/__init__.py": "",
    "tests/unit/server/conftest.py": "",
    "tests/unit/server/helper.py": 'COMMAND = ["-m", "app.server"]\n',
    "tests/unit/server/cases.yml": "",
    "tests/unit/server/test_runs.py": "from tests.unit.server.helper import COMMAND\n",
    "tests/unit/server/test_cases.py": "HERE = __file__\nHERE.glob('*.yml')\n",
    "tests/unit/test_core.py": "import app.core\n",
    "tests/unit/test_late.py": "from app import late\n",
    "tests/unit/test_loading.py": "import app.loading\n",
    "tests/unit/test_told.py": "import app.told\n",
    "tests/unit/test_rendered.py": "import deploy\n",
    "tests/unit/test_pages.py": "(PROJECT / 'docs').rglob('*.md')\nNAMED = 'tests/unit/test_late.py'\n",
    "tests/lab/test_lab.py": "",
}


def chosen(
    *changed: str, files: Mapping[str, str] = FILES, seconds: Mapping[str, float] | None = None
) -> Selection:
    known = graph({**dict.fromkeys(changed, ""), **files})
    return choose_tests(changed, files, known, seconds or {})


def names(*changed: str) -> set[str]:
    return {path.removeprefix("tests/unit/") for path in chosen(*changed).files}


@pytest.mark.parametrize(
    ("changed", "affected"),
    [
        (
            "src/app/core.py",
            {"test_core.py", "test_late.py", "server/test_runs.py"},
        ),  # imported late; in a process
        ("src/app/server/__main__.py", {"server/test_runs.py"}),
        ("src/app/plugged.py", {"test_loading.py"}),  # by an entry point
        ("templates/env/app.env.j2", {"test_rendered.py"}),  # by the name of a directory
        ("roles/web/main.yml", {"test_rendered.py"}),  # with the rest of what a fleet is made of
        ("deploy/__init__.py", {"test_rendered.py"}),
        ("deploy.py", {"test_rendered.py"}),  # has the same module name
        ("docs/page.md", {"test_pages.py"}),
        ("tests/unit/test_late.py", {"test_late.py", "test_pages.py"}),  # reads it, but does not run it
        ("tests/unit/server/conftest.py", {"server/test_runs.py", "server/test_cases.py"}),
        ("tests/unit/server/helper.py", {"server/test_runs.py"}),
        ("tests/unit/server/cases.yml", {"server/test_cases.py"}),  # by a pattern
        ("tests/unit/test_told.py", {"test_told.py"}),
        (".github/workflows/ci.yml", set()),
        ("tests/lab/test_lab.py", set()),
        ("tests/unit/test_removed.py", set()),
    ],
)
def test_a_change_runs_what_needs_it(changed: str, affected: set[str]) -> None:
    assert names(changed) == affected


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("windows/prepare.ps1", "all: what windows/prepare.ps1 affects is not known"),
        ("src/app/unused.py", "all: what src/app/unused.py affects is not known"),
        ("pyproject.toml", "all: pyproject.toml affects every test"),
        ("tests/conftest.py", "all: tests/conftest.py affects every test"),
    ],
)
def test_unknown_is_all(changed: str, why: str) -> None:
    tests = chosen("src/app/core.py", changed)
    assert len(tests.files) == tests.of == 8
    assert tests.why == why


def test_a_module_that_was_removed_runs_what_still_needs_it() -> None:
    files = {path: text for path, text in FILES.items() if path != "src/app/core.py"}
    assert "tests/unit/test_core.py" in chosen("src/app/core.py", files=files).files


def test_a_file_that_is_no_python_any_more_runs_what_needs_it() -> None:
    files = {**FILES, "src/app/late.py": "def two(:\n"}
    assert chosen("src/app/late.py", files=files).files == ("tests/unit/test_late.py",)


def test_what_would_take_too_long_is_left_out_the_farthest_first() -> None:
    seconds = {"tests/unit/test_core.py": LIMIT_S, "tests/unit/test_late.py": 2 * LIMIT_S}
    tests = chosen("src/app/core.py", seconds=seconds)
    assert tests.files == ("tests/unit/test_core.py", "tests/unit/server/test_runs.py")
    assert tests.left_out == ("tests/unit/test_late.py",)
    nearest = chosen("src/app/core.py", "tests/unit/test_late.py", seconds=seconds)
    assert nearest.files == ("tests/unit/test_late.py",)


def test_what_reads_everything_always_runs() -> None:
    files = {**FILES, ALWAYS[0]: ""}
    assert chosen("docs/page.md", files=files).files == ("tests/unit/test_pages.py", ALWAYS[0])


def test_a_program_that_text_for_people_names_is_not_needed() -> None:
    assert "deploy/keys.py" not in distances(["src/app/told.py"], graph(FILES))


def test_checks_see_changed_files_only() -> None:
    changed = [
        "src/mt5crs_release/gone.py",
        "deploy/keys.py",
        "roles/web/main.yml",
        ".github/workflows/ci.yml",
    ]
    checks = {check.name: check.command for check in choose_checks(changed, FILES)}
    assert checks == {
        "ruff format": ("ruff", "format", "--check", "--quiet", "--force-exclude", "deploy/keys.py"),
        "ruff check": ("ruff", "check", "--quiet", "--force-exclude", "deploy/keys.py"),
        "yamllint": ("yamllint", "--strict", "roles/web/main.yml", ".github/workflows/ci.yml"),
        "actionlint": ("actionlint", ".github/workflows/ci.yml"),
        "mypy": ("mypy", "--no-error-summary"),
        "mypy for Windows": ("mypy", "--no-error-summary", "--platform", "win32", "-p", "mt5crs_release"),
        "ansible-lint": ("ansible-lint", "--offline", "-q", "roles/web/main.yml"),
    }
    assert choose_checks(["docs/page.md"], FILES) == []


def test_a_linter_whose_settings_changed_sees_everything() -> None:
    checks = {
        check.name: check.command
        for check in choose_checks([".yamllint", ".ansible-lint", "pyproject.toml"], [])
    }
    assert checks["yamllint"] == ("yamllint", "--strict", ".")
    assert checks["ansible-lint"] == ("ansible-lint", "--offline", "-q")
    assert checks["ruff check"] == ("ruff", "check", "--quiet", ".")
    assert "mypy" in checks


# ---- what has changed ----


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one commit more than its origin."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    for name in ("kept.py", "gone.py"):
        (origin / name).write_text(name)
    commit(origin)
    git(tmp_path, "clone", "-q", str(origin), "clone")
    (tmp_path / "clone" / "committed.py").touch()
    commit(tmp_path / "clone")
    (origin / "theirs.py").touch()
    commit(origin)
    git(tmp_path / "clone", "fetch", "-q")
    return tmp_path / "clone"


def git(where: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=where, check=True, capture_output=True)


def commit(where: Path) -> None:
    git(where, "add", "-A")
    git(where, "commit", "-qm", "one more")


def test_committed_changed_removed_and_untracked_count_and_upstreams_own_do_not(clone: Path) -> None:
    (clone / "gone.py").unlink()
    (clone / "kept.py").write_text("changed")
    (clone / "ä new.py").touch()
    (clone / ".gitignore").write_text("ignored")
    (clone / "ignored").touch()
    found = changes(clone)
    assert found.paths == (".gitignore", "committed.py", "gone.py", "kept.py", "ä new.py")
    assert found.since == "since origin/main"
    assert found.files == (".gitignore", "committed.py", "kept.py", "ä new.py")


def test_upstream_is_preferred(clone: Path) -> None:
    git(clone, "update-ref", "refs/remotes/upstream/main", "HEAD")
    assert changes(clone) == Changes((), "since upstream/main", ("committed.py", "gone.py", "kept.py"))


def test_another_base(clone: Path) -> None:
    assert changes(clone, "HEAD").paths == ()
    assert changes(clone, "HEAD~1").paths == ("committed.py",)


def test_a_shallow_clone_compares_with_upstream_itself(clone: Path) -> None:
    shallow = clone.parent / "shallow"
    git(clone.parent, "clone", "-q", "--depth", "1", f"file://{clone}", str(shallow))
    (shallow / "kept.py").write_text("changed")
    assert changes(shallow).paths == ("kept.py",)
    git(
        shallow,
        "fetch",
        "-q",
        "--depth",
        "1",
        f"file://{clone.parent / 'origin'}",
        "main:refs/remotes/upstream/main",
    )
    found = changes(shallow)
    assert found.since == "against upstream/main, no merge base in this clone"
    assert found.paths == ("committed.py", "kept.py", "theirs.py")


def test_without_upstream_what_is_not_committed(clone: Path) -> None:
    git(clone, "remote", "remove", "origin")
    (clone / "kept.py").write_text("changed")
    found = changes(clone)
    assert found.paths == ("kept.py",)
    assert found.since == "not committed; upstream/main is not here, BASE=<commit> compares with more"


@pytest.mark.parametrize("base", ["no-such", "--help", "HEAD:kept.py"])
def test_a_bad_base_is_one_sentence_with_the_remedy(clone: Path, base: str) -> None:
    with pytest.raises(ChangesError) as told:
        changes(clone, base)
    assert str(told.value).startswith(f"BASE={base} is no commit here: name one that `git log` shows")


def test_no_repository_and_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ChangesError, match="this is no git repository"):
        changes(tmp_path)
    git(tmp_path, "init", "-q")
    with pytest.raises(ChangesError, match="there is no commit yet"):
        changes(tmp_path)


# ---- the command ----


def test_nothing_changed_says_so(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quick, "ROOT", clone)
    assert quick.main(["--base", "HEAD"]) == 0
    assert capsys.readouterr().out == "quick: nothing has changed (since HEAD), nothing to run\n"
    assert quick.main(["--base", "no-such"]) == 2
    assert capsys.readouterr().err.startswith("quick: BASE=no-such is no commit here")


def test_one_line_tells_what_runs_and_why() -> None:
    tests = Selection(("a", "b"), ("c",), 97, "those that the change affects", 12.4)
    checks = choose_checks(["deploy/keys.py"], FILES)
    run, more = quick.told(Changes(("x", "y"), "since upstream/main", ()), tests, checks)
    assert run.startswith(
        "quick: 2 changed files (since upstream/main) -> 2 of 97 test files (those that the ch"
    )
    assert run.endswith("affects), about 12 s; ruff format, ruff check, mypy")
    assert more == "quick: 1 more are affected but would take too long; `make unit` runs them"


# ---- this repository ----


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """What each file of this repository refers to."""
    try:
        return graph(quick.texts(ROOT, changes(ROOT, "HEAD").files))
    except ChangesError as error:
        pytest.skip(str(error))


def test_times_are_of_files_that_there_are() -> None:
    assert [path for path in SECONDS if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize(
    ("changed", "affected"),
    [
        ("src/mt5crs/gateway/order_manager.py", "tests/unit/reconciler/test_scenarios.py"),  # a process
        ("src/mt5crs_release/lifecycle/gate.py", "tests/unit/release/test_tool.py"),
        ("src/mt5crs/strategy/example.py", "tests/unit/strategy/test_runner.py"),  # an entry point
        ("templates/env/gateway.env.j2", "tests/unit/templates/test_both_engines.py"),
        ("templates/monitoring/ready.py", "tests/unit/monitoring/test_ready.py"),
        ("roles/release/tasks/undo.yml", "tests/unit/plugins/test_ansible_report.py"),
        ("group_vars/all/defaults.yml", "tests/unit/fleet/test_contract.py"),
        ("tests/release_host/systemctl", "tests/unit/release/test_undo.py"),
        ("docs/rollout.md", "tests/unit/documentation/test_documentation.py"),
        ("lab/requirements.apt", "tests/unit/lab/test_setup.py"),
    ],
)
def test_what_a_file_of_this_repository_affects(
    known: dict[str, set[str]], changed: str, affected: str
) -> None:
    assert changed in known
    tests = choose_tests([changed], known, known, SECONDS)
    assert affected in {*tests.files, *tests.left_out}


def test_what_strace_says_was_opened() -> None:
    log = [
        '7 openat(AT_FDCWD</r>, "/r/src/a.py", O_RDONLY|O_CLOEXEC) = 3</r/src/a.py>',
        '7 openat(AT_FDCWD</r>, "b", O_RDONLY) = -1 ENOENT (No such file or directory)',
        '7 openat(AT_FDCWD</r>, "x", O_RDONLY) = 4</r/src/__pycache__/c.cpython-311.pyc>',
        '8 execve("/r/lab/setup", ["setup"], 0x7ffd /* 20 vars */) = 0',
        '8 openat(AT_FDCWD</r>, "/etc/passwd", O_RDONLY) = 3</etc/passwd>',
    ]
    assert opened(log, Path("/r")) == {"src/a.py", "src/c.py", "lab/setup"}
