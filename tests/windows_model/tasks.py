"""Finds every task for Windows in the roles and compares its options with the real modules' documentation.

The model checks the values of a run; this checks every task, also those that no run reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "bool": bool,
    "int": int,
    "list": list,
    "dict": dict,
    "str": (str, int, float),
    "path": str,
}


class Task(NamedTuple):
    """One use of a module of a Windows collection."""

    file: Path
    name: str
    module: str
    options: Mapping[str, Any]


def tasks(project: Path) -> list[Task]:
    """Every task of the roles that uses a module of ansible.windows or community.windows."""
    found: list[Task] = []
    for path in sorted((project / "roles").glob("*/*/**/*.yml")):
        if path.parent.name in ("meta", "vars", "defaults"):
            continue
        found += _walk(path, yaml.safe_load(path.read_text(encoding="utf-8")) or [])
    return found


def _walk(path: Path, entries: Any) -> Iterator[Task]:
    for entry in entries if isinstance(entries, list) else []:
        for key in ("block", "rescue", "always"):
            yield from _walk(path, entry.get(key))
        for key, value in entry.items():
            if key.startswith(("ansible.windows.", "community.windows.")):
                yield Task(path, str(entry.get("name")), key, value or {})


def problems(task: Task, documented: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How a task differs from its module's documentation; empty when it does not."""
    where = f"{task.file.name}: {task.name}: {task.module}"
    if task.module not in documented:
        return [f"{where} is not among the documented modules"]
    return [f"{where}: {problem}" for problem in _options("", task.options, documented[task.module])]


def _options(
    prefix: str, given: Mapping[str, Any], documented: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    names = {alias: name for name, option in documented.items() for alias in option.get("aliases") or ()}
    names |= {name: name for name in documented}
    for name, value in given.items():
        if name not in names:
            yield f"{prefix}{name} is no option; there are {', '.join(sorted(documented))}"
            continue
        yield from _value(prefix + name, value, documented[names[name]])
    used = {names.get(name) for name in given}
    for name, option in documented.items():
        if option.get("required") and name not in used:
            yield f"{prefix}{name} is missing"


def _value(name: str, value: Any, option: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(value, str) and "{{" in value:
        return  # known in a run only; the model checks it there
    kind = option.get("type")
    wanted = _TYPES.get(str(kind))
    if wanted is not None and (not isinstance(value, wanted) or isinstance(value, bool) != (kind == "bool")):
        yield f"{name} must be {kind}, not {type(value).__name__}"
        return
    choices = option.get("choices")
    entries = value if isinstance(value, list) else [value]
    for number, entry in enumerate(entries):
        if choices and entry not in choices and "{{" not in str(entry):
            yield f"{name} is {entry!r}; choices are {', '.join(map(str, choices))}"
        if option.get("suboptions") and isinstance(entry, dict):
            yield from _options(f"{name}[{number}].", entry, option["suboptions"])
