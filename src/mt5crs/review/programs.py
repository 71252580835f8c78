"""The programs of gate 1: how each is asked about the files that changed, and how its answer is read.

They run on a copy of the tree, without network settings, keys or the caller's environment. A program that is
missing or fails has found nothing out: the gate says so, and does not pass.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from mt5crs.review.model import Finding, Part, ReviewError, Severity
from mt5crs.review.tree import run

WITHIN_S: Final = 300.0
State = Literal["ran", "not needed", "missing", "failed"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one program."""

    program: str
    state: State
    detail: str = ""
    findings: list[Finding] = msgspec.field(default_factory=list)


class Program(NamedTuple):
    """A program: which changed files concern it, its command, the reading of what it prints.

    `good` are exit statuses that mean that it has looked, whatever it found.
    """

    name: str
    concerns: Callable[[str], bool]
    command: Callable[[Sequence[str], Path], list[str]]
    read: Callable[[bytes, Path], Iterator[Finding]]
    good: tuple[int, ...] = (0, 1)


def where(name: str) -> str | None:
    """The program beside this Python, or where the system keeps programs; None: there is none."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))


def ask(program: Program, paths: Sequence[str], copy: Path, cache: Path) -> Outcome:
    """Run one program on `copy` for those of `paths` that concern it."""
    concerned = [path for path in paths if program.concerns(path)]
    if not concerned:
        return Outcome(program=program.name, state="not needed")
    found = where(program.name)
    if found is None:
        detail = f"{program.name} is not beside this Python; `make setup` installs it"
        return Outcome(program=program.name, state="missing", detail=detail)
    command = [found, *program.command(concerned, cache)]
    try:
        answer = run(command, _environment(cache), directory=copy, within_s=WITHIN_S)
        if answer.returncode not in program.good:
            said = (answer.stderr or answer.stdout).decode(errors="replace").strip().splitlines()
            reason = said[-1] if said else "no reason given"
            raise ReviewError(f"it ended with status {answer.returncode}: {reason}")
        findings = list(program.read(answer.stdout, copy))
    except (ReviewError, ValueError, KeyError, TypeError, IndexError) as error:
        return Outcome(program=program.name, state="failed", detail=f"{program.name}: {error}")
    return Outcome(program=program.name, state="ran", findings=findings)


def _environment(cache: Path) -> dict[str, str]:
    """Enough to run, and nothing of whoever asks: no keys, no proxies, no home."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    return {"PATH": path, "HOME": str(cache), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def _name(copy: Path, path: str) -> str:
    """A path as the tree has it: programs say `/…/a.py`, `./a.py` or `././a.py`."""
    return os.path.relpath(copy / path, copy)


def _line(copy: Path, path: str, number: int) -> str:
    try:
        lines = (copy / path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _found(
    copy: Path, source: str, rule: str, path: str, line: int, message: str, severity: Severity, part: Part
) -> Finding:
    name = _name(copy, path)
    return Finding(
        rule=rule,
        severity=severity,
        part=part,
        path=name,
        line=line,
        message=message.strip()[:500],
        source=source,
        quote=_line(copy, name, line).strip()[:200],
    )


def _ruff(output: bytes, copy: Path) -> Iterator[Finding]:
    for each in msgspec.json.decode(output, type=list[dict[str, Any]]):
        rule = each.get("code") or "invalid-syntax"
        security = re.match(r"S\d", rule) is not None
        undefined = rule in ("F821", "F822", "F823", "invalid-syntax")
        severity: Severity = "P1" if undefined else "P2" if security else "P3"
        part: Part = "security" if security else "quality"
        yield _found(
            copy, "ruff", rule, each["filename"], each["location"]["row"], each["message"], severity, part
        )


_MYPY = re.compile(
    r"(?P<path>[^:\n]+):(?P<line>\d+):(?:\d+:)? error: (?P<message>.*?)(?:  \[(?P<code>[\w-]+)\])?$"
)


def _mypy(output: bytes, copy: Path) -> Iterator[Finding]:
    for line in output.decode(errors="replace").splitlines():
        error = _MYPY.match(line)
        if error:
            rule = f"mypy-{error['code'] or 'error'}"
            yield _found(
                copy, "mypy", rule, error["path"], int(error["line"]), error["message"], "P2", "quality"
            )


_ACCEPTED = re.compile(r"#\s*noqa:[^#]*\bS(\d{3})\b")


def _bandit(output: bytes, copy: Path) -> Iterator[Finding]:
    """What is at least of medium severity. Ruff's S rules have bandit's numbers: `noqa: S…` is for both."""
    document = msgspec.json.decode(output, type=dict[str, Any])
    if document["errors"]:
        first = document["errors"][0]
        raise ReviewError(f"it could not read {first.get('filename')}: {first.get('reason')}")
    for each in document["results"]:
        rule, line = str(each["test_id"]), int(each["line_number"])
        text = " ".join(
            _line(copy, each["filename"], number) for number in {line, *each.get("line_range", ())}
        )
        if each["issue_severity"] == "LOW" or rule[1:] in _ACCEPTED.findall(text):
            continue
        severity: Severity = "P1" if each["issue_severity"] == "HIGH" else "P2"
        yield _found(copy, "bandit", rule, each["filename"], line, each["issue_text"], severity, "security")


_LEVELS: Final[dict[str, Severity]] = {"error": "P1", "warning": "P2", "note": "P3", "none": "P3"}


def _sarif(source: str, part: Part, highest: Severity) -> Callable[[bytes, Path], Iterator[Finding]]:
    def read(output: bytes, copy: Path) -> Iterator[Finding]:
        for each in msgspec.json.decode(output, type=dict[str, Any])["runs"]:
            for result in each["results"]:
                place = result["locations"][0]["physicalLocation"]
                severity = max(_LEVELS[result.get("level", "warning")], highest)
                yield _found(
                    copy,
                    source,
                    str(result["ruleId"]),
                    place["artifactLocation"]["uri"],
                    int(place.get("region", {}).get("startLine", 0)),
                    result["message"]["text"],
                    severity,
                    part,
                )

    return read


def _python(path: str) -> bool:
    return path.endswith((".py", ".pyi"))


def _shipped_python(path: str) -> bool:
    """Python that somebody runs; tests say `assert`, use fixed passwords and are not shipped."""
    return _python(path) and path.startswith(("src/", "deploy/", "plugins/"))


def _workflow(path: str) -> bool:
    return path.startswith((".github/workflows/", ".github/actions/")) and path.endswith((".yml", ".yaml"))


def _play(path: str) -> bool:
    return path.endswith((".yml", ".yaml")) and (
        path.startswith(("roles/", "molecule/", "group_vars/"))
        or path in ("site.yml", "rollback.yml", "windows.yml")
    )


PROGRAMS: Final = (
    Program(
        "mypy",
        lambda path: _python(path) or path == "pyproject.toml",
        # The whole project: a change breaks who calls it.
        lambda _, cache: ["--no-error-summary", "--no-color-output", "--cache-dir", str(cache / "mypy")],
        _mypy,
    ),
    Program(
        "ansible-lint",
        _play,
        lambda paths, _: ["--offline", "-q", "--format", "sarif", "--", *paths],
        _sarif("ansible-lint", "quality", "P2"),
        good=(0, 2),
    ),
    Program(
        "ruff",
        _python,
        lambda paths, cache: [
            *("check", "--quiet", "--exit-zero", "--force-exclude", "--output-format", "json"),
            *("--cache-dir", str(cache / "ruff"), "--", *paths),
        ],
        _ruff,
        good=(0,),
    ),
    Program(
        "bandit",
        _shipped_python,
        lambda paths, _: [
            *("--quiet", "--format", "json", "--exit-zero", "--ignore-nosec"),
            *(f"./{path}" for path in paths),
        ],
        _bandit,
        good=(0,),
    ),
    Program(
        "zizmor",
        _workflow,
        lambda paths, _: ["--offline", "--quiet", "--no-exit-codes", "--format", "sarif", "--", *paths],
        _sarif("zizmor", "security", "P1"),
        good=(0,),
    ),
)
"""The slow ones first: two run at a time."""
