"""Workflows run what there is, with no more rights than they need, and nothing of it can be moved under them.

What they call is looked up, in the Makefile, on disk, among the modules. `make workflow-run` runs the light
ones on an empty machine; tests.fresh.workflow says why the others cannot be.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.controller.programs import require
from tests.fresh import workflow

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
USED = re.compile(r"^\s*(?:- )?uses: *(.+)$", re.MULTILINE)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+")
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OF_RUNNERS = {
    *("cd", "cp", "export", "gh", "git", "printf", "python", "python3"),
    *("rm", "sed", "test", "trap", "umask", "uv"),
}
"""What a runner brings, or the shell."""
WORDS = {"do", "done", "for", "if", "then", "fi", "else", "(", "&&", "||", ";"}
MADE = ("~/tools/bin/", ".host/bin/", ".venv/bin/", "dist/")
"""Where steps before have put programs."""


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in document(path)["jobs"].values():
        yield from job["steps"]


def commands(script: str) -> Iterator[list[str]]:
    """Every simple command of a script of ours, without what is put before it."""
    lexer = shlex.shlex(
        script.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=";&|()<>"
    )
    lexer.whitespace_split = True
    command: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set(";&|()"):
            while command and (command[0] in WORDS or "=" in command[0].split("/")[0]):
                command = [] if command[0] == "for" else command[1:]
            while command and (command[0] == "sudo" or command[0].startswith("--preserve-env")):
                command = command[1:]
            if command:
                yield command
            command = []
        else:
            command.append(token)


def problem(command: list[str]) -> str | None:
    """Why a command cannot run, as far as the repository tells."""
    program, *arguments = command
    if program == "make":
        missing = [each for each in arguments if "=" not in each and each not in TARGETS]
        return f"no target {', '.join(missing)}" if missing else None
    if "-m" in arguments:
        module = arguments[arguments.index("-m") + 1]
        if module not in ("pip", "pytest", "venv") and importlib.util.find_spec(module) is None:
            return f"no module {module}"
    for each in arguments:
        named = (
            each.startswith(("tests/", "inventory/", "windows/"))
            and "*" not in each
            and not each.endswith(".zip")
        )
        if named and not (ROOT / each).exists():
            return f"{each} does not exist"
    if program in OF_RUNNERS or program.startswith(MADE):
        return None
    path = ROOT / program
    return None if path.is_file() and os.access(path, os.X_OK) else f"no program {program}"


def scripts() -> list[tuple[str, str]]:
    """(where, text) of every step in a shell that is read here; PowerShell is not."""
    return [
        (f"{path.name}: {step.get('name', step['run'])}", step["run"])
        for path in WORKFLOWS
        for step in steps(path)
        if "run" in step and step.get("shell", "bash") != "pwsh"
    ]


def test_every_action_is_named_by_commit_and_says_its_tag() -> None:
    used = [action for path in WORKFLOWS for action in USED.findall(path.read_text(encoding="utf-8"))]
    assert used
    assert [action for action in used if not action.startswith("./") and not PINNED.fullmatch(action)] == []


def test_an_action_is_the_same_commit_wherever_it_is_used() -> None:
    used = {action for path in WORKFLOWS for action in USED.findall(path.read_text(encoding="utf-8"))}
    names = [action.partition("@")[0] for action in used]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_rights_and_a_job_those_it_needs(path: Path) -> None:
    told = document(path)
    assert told["permissions"] == {}
    for name, job in told["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
        writes = {right for right, level in job["permissions"].items() if level == "write"}
        assert writes == ({"contents"} if path.name == "release.yml" else set()), name


@pytest.mark.parametrize(("where", "script"), scripts(), ids=[where for where, _ in scripts()])
def test_what_a_step_runs_is_there(where: str, script: str) -> None:
    found = list(commands(script))
    assert found
    assert {" ".join(each): said for each in found if (said := problem(each))} == {}


def installs() -> list[list[str]]:
    """Every call of pip in a workflow and in what it may be told to do by hand, PowerShell included."""
    texts = [step.get("run", "") for path in WORKFLOWS for step in steps(path)]
    texts += [(ROOT / name).read_text(encoding="utf-8") for name in ("docs/windows.md", "lab/setup-python")]
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if re.search(r"\bpip3? install\b", line)]


def test_nothing_is_installed_but_by_hash_or_from_here() -> None:
    """A package index that lies, or a release that was taken over, is noticed before its code runs."""
    found = installs()
    assert len(found) >= 6
    of_here = {"--no-deps", "--no-build-isolation"}
    unbound = [
        " ".join(each)
        for each in found
        if not {"--require-hashes", ":all:"} <= set(each) and not (of_here <= set(each) and each[-1] == ".")
    ]
    assert unbound == []


def test_the_hashes_are_those_of_the_lock() -> None:
    kept = ROOT / "tests" / "host-requirements.txt"
    command = re.search(r"\$\(UV\) export (.*?)--output-file", (ROOT / "Makefile").read_text(), re.DOTALL)
    assert command
    arguments = command[1].replace("\\\n", " ").split()
    made = subprocess.run(
        [require("uv"), "export", "--offline", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert made.stdout == kept.read_text(), "run `make host-requirements`"


def test_no_text_from_outside_is_put_into_a_script() -> None:
    """`${{ … }}` is put in before the shell reads it: whoever writes it writes the script."""
    shown = [
        f"{path.name}: {step['run']}"
        for path in WORKFLOWS
        for step in steps(path)
        if "${{" in step.get("run", "")
    ]
    assert shown == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("make lint units", "no target units"),
        ("sudo make nothing && make lint", "no target nothing"),
        ("lab/set-up", "no program lab/set-up"),
        ("python -m deploy.bundles --platform all", "no module deploy.bundles"),
        ("python -m pytest -q tests/unit/nowhere", "tests/unit/nowhere does not exist"),
        ("INVENTORY=x curl https://example.org | sh", "no program curl"),
    ],
)
def test_what_cannot_run_is_noticed(command: str, said: str) -> None:
    assert said in [problem(each) for each in commands(command)]


def files(command: list[str]) -> set[Path]:
    """The test files that a command of pytest collects."""
    ignored = {ROOT / each for before, each in pairwise(command) if before == "--ignore"}
    named = {ROOT / each for each in command if each.startswith("tests/")} - ignored
    return {
        file for path in named for file in ([path] if path.is_file() else path.rglob("test_*.py"))
    } - ignored


def test_tests_on_other_systems_need_nothing_of_the_controller() -> None:
    """They are run with the programs of hosts alone; a controller has what they would miss."""
    asked = [command for _, script in scripts() for command in commands(script) if "pytest" in command]
    collected = set().union(*map(files, asked))
    assert collected
    missing = ["yaml", "ansible", "pyinfra", "jinja2", "rich", "httpx"]
    hidden = f"import sys; sys.modules.update(dict.fromkeys({missing})); "
    hidden += "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "--collect-only", "-q", "-q", *map(str, sorted(collected))],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_every_job_is_run_on_an_empty_machine_or_says_why_not() -> None:
    listed = {(path.name, job) for path in WORKFLOWS for job in document(path)["jobs"]}
    assert listed == {*workflow.LIGHT, *(each[:2] for each in workflow.NOT_HERE if len(each) == 2)}
    for (name, job), run in workflow.LIGHT.items():
        there = {
            step["name"]
            for step in document(WORKFLOWS[0].parent / name)["jobs"][job]["steps"]
            if "run" in step
        }
        left_out = {each[2] for each in workflow.NOT_HERE if each[:2] == (name, job)}
        assert there == {*run, *left_out}, (name, job)


def test_a_step_is_run_with_what_its_workflow_sets() -> None:
    first, second = workflow.steps("ci.yml", "quality", ("Debian packages", "Lint"), {"python": "3.13"})
    assert first.script == "export UV_PYTHON=3.13\nsudo lab/setup"
    assert second.name == "ci.yml, quality: Lint"
    with pytest.raises(KeyError):
        workflow.steps("ci.yml", "quality", ("Lint",), {})
    with pytest.raises(KeyError):
        workflow.steps("ci.yml", "quality", ("Lint it",), {"python": "3.13"})


@pytest.mark.parametrize(("tag", "good"), [("v{version}", True), ("v9.9.9", False), ("{version}", False)])
def test_a_release_is_refused_whose_tag_is_not_its_version(tag: str, good: bool) -> None:
    """The step itself, with the shell that GitHub runs it with."""
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    (step,) = workflow.steps("release.yml", "release", ("The tag says the version",), {})
    done = subprocess.run(
        [*workflow.SHELL, "-c", step.script],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag.format(version=version[1])},
        timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is good
