"""Tasks of operate.yml and operate.py: which `mt5crs` command each is, and what it has to be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OPTIONS = {
    "host": "",
    "former": "",
    "new": "",
    "address": "",
    "order_id": "",
    "why": "--reason",
    "magic": "--magic",
    "yes": "--yes",
    "reduce": "--reduce",
    "undo": "--undo",
    "lost": "--lost",
    "backup": "--backup",
    "no_backup": "--no-backup",
    "lock": "--lock",
}
"""What a task may be told → the option it goes by; empty: it stands by itself."""
_FLAGS = frozenset({"yes", "reduce", "undo", "lost", "no_backup"})
_ON, _OFF = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})


@dataclass(frozen=True)
class Task:
    """A command of that name. words: always said; needs, may: what it is told; acts: it changes something."""

    words: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    acts: bool = False


TASKS = {
    "preflight": Task(),
    "status": Task(),
    "fleet": Task(),
    "positions": Task(words=("--all",)),
    "orders": Task(),
    "leases": Task(),
    "deployments": Task(words=("list",)),
    # Nobody sees a countdown in a play, so that nobody thinks again has to be said.
    "start": Task(needs=("magic", "yes"), may=("why",), acts=True),
    "stop": Task(needs=("magic", "why"), may=("reduce",), acts=True),
    "halt": Task(needs=("why",), may=("magic",), acts=True),
    "resume": Task(needs=("why",), may=("magic",), acts=True),
    "cancel": Task(needs=("why",), may=("magic",), acts=True),
    "flatten": Task(needs=("magic",), acts=True),
    "withdraw": Task(needs=("magic", "why"), acts=True),
    "recover": Task(needs=("why",), may=("lock",), acts=True),
    "accept": Task(needs=("host", "why"), acts=True),
    "migrate": Task(words=("--yes",), needs=("host", "address", "why"), may=("undo",), acts=True),
    "replace": Task(
        words=("--yes",),
        needs=("former", "new", "address", "why"),
        may=("lost", "backup", "no_backup"),
        acts=True,
    ),
    "resolve": Task(needs=("order_id", "magic", "why"), acts=True),
}


def listed() -> str:
    """All tasks, with what each has to be told, and in brackets what it may be told."""
    told = (
        (name, ", ".join((*task.needs, *(f"[{one}]" for one in task.may)))) for name, task in TASKS.items()
    )
    return "; ".join(f"{name}{f': {words}' if words else ''}" for name, words in told)


def problem(name: str, told: Mapping[str, Any]) -> str:
    """Why a task cannot be done with what it was told; empty: it can."""
    task = TASKS.get(name)
    if task is None:
        what = f"there is no task {name!r}" if name else "no task is named"
        return f"{what}; there are {listed()}. Nothing was done"
    for flag in _FLAGS & told.keys():
        if _text(told[flag]) not in _ON | _OFF | {""}:
            return f"{flag} is true or false, not {_text(told[flag])!r}; nothing was done"
    for standing in (one for one in told if OPTIONS.get(one) == "" and _text(told[one]).startswith("-")):
        return f"{standing} is a name, not {_text(told[standing])!r}; nothing was done"
    missing = [one for one in task.needs if not _said(one, told)]
    if missing:
        return f"{name} has to be told {', '.join(missing)}; nothing was done"
    # A reason may always be said. What else is left out would change what is meant.
    extra = [one for one in told if _said(one, told) and one not in (*task.needs, *task.may, "why")]
    if extra:
        return f"{name} takes no {', '.join(extra)}, so something else is meant; nothing was done"
    return ""


def words(name: str, told: Mapping[str, Any]) -> list[str]:
    """The command of a task. ValueError with `problem`."""
    why = problem(name, told)
    if why:
        raise ValueError(why)
    task = TASKS[name]
    found = [name, *task.words]
    for one in (one for one in OPTIONS if one in (*task.needs, *task.may) and _said(one, told)):
        option, value = OPTIONS[one], _text(told[one])
        found.append(option if one in _FLAGS else f"{option}={value}" if option else value)
    return found


def _said(name: str, told: Mapping[str, Any]) -> bool:
    value = _text(told.get(name))
    return value in _ON if name in _FLAGS else bool(value)


def _text(value: Any) -> str:
    """As people write it: Ansible gives numbers and truth values, pyinfra text."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()
