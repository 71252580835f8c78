"""The tasks of operate.yml and operate.py: each is a command of that name, with words that it takes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from ansible.vars.reserved import get_reserved_names
from pyinfra.api.exceptions import PyinfraError

from deploy.controller.operating import OPTIONS, TASKS, problem, words
from deploy.fleet.vault_password import PROJECT
from deploy.operations import command_line, operating
from mt5crs.__main__ import OF_A_FLEET, LazyGroup, main

PLAYS: list[dict[str, Any]] = yaml.safe_load((PROJECT / "operate.yml").read_text())
TOLD = {
    "why": "drill",
    "magic": "202401",
    "host": "inf-01",
    "order_id": "abc",
    "yes": "true",
    "reduce": "true",
    "address": "10.0.0.9",
    "undo": "true",
    "former": "gtw-01",
    "new": "gtw-02",
    "lost": "true",
    "backup": "20261201T000000Z",
    "no_backup": "true",
    "lock": "none",
}


def told_of(name: str, *, may: bool = True) -> dict[str, str]:
    task = TASKS[name]
    return {one: TOLD[one] for one in (*task.needs, *(task.may if may else ()))}


def parsed(name: str, told: dict[str, str]) -> click.Context:
    """The command as it would run. click.UsageError when it would not."""
    assert isinstance(main, LazyGroup)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    first, *rest = words(name, told)
    assert first == name
    return command.make_context(name, rest)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_task_is_called_with_words_that_its_command_takes(name: str) -> None:
    assert name in OF_A_FLEET
    parsed(name, told_of(name))
    parsed(name, told_of(name, may=False))
    for missing in TASKS[name].needs:
        less = {one: value for one, value in told_of(name).items() if one != missing}
        assert problem(name, less) == f"{name} has to be told {missing}; nothing was done"


def test_every_command_that_acts_on_a_fleet_is_a_task_that_acts() -> None:
    assert {name for name, task in TASKS.items() if task.acts} >= {
        *("start", "stop", "halt", "resume", "cancel", "flatten", "withdraw", "recover", "accept", "resolve")
    }
    assert all(task.acts or not task.needs for task in TASKS.values())


def test_the_play_has_every_task_as_a_tag_and_asks_for_what_it_may_be_told() -> None:
    first, second = PLAYS
    assert first["tags"] == ["preflight"]
    assert set(second["tags"]) == {"never", *TASKS} - {"preflight"}
    assert set(second["vars"]["operate_may_be_told"][2:-2].split("|")) == set(OPTIONS)
    assert not OPTIONS.keys() & get_reserved_names(), "Ansible warns of them"


def test_what_is_told_arrives() -> None:
    halted = {"why": "two words", "magic": "202401"}
    assert words("halt", halted) == ["halt", "--reason=two words", "--magic=202401"]
    assert parsed("halt", {"why": "--yes"}).params["reason"] == "--yes"
    assert parsed("halt", {"why": "drill"}).params["magic"] is None
    assert parsed("accept", told_of("accept")).params["host"] == "inf-01"
    replaced = parsed("replace", told_of("replace")).params
    assert (replaced["former"], replaced["new"], replaced["address"]) == ("gtw-01", "gtw-02", "10.0.0.9")
    assert parsed("resolve", told_of("resolve")).params["client_order_id"] == "abc"
    assert parsed("start", told_of("start")).params["yes"] is True
    assert "--reduce" not in words("stop", {**told_of("stop"), "reduce": False})
    assert words("stop", {"magic": 202401, "why": "x", "reduce": True})[-1] == "--reduce"


@pytest.mark.parametrize(
    ("name", "told", "why"),
    [
        ("", {}, "no task is named; there are preflight; "),
        ("hlat", {}, "there is no task 'hlat'; there are "),
        ("halt", {"why": " "}, "halt has to be told why"),
        ("start", {"magic": "1", "yes": "no"}, "start has to be told yes"),
        ("start", {"magic": "1", "yes": "maybe"}, "yes is true or false, not 'maybe'"),
        ("cancel", {"why": "x", "host": "gtw-01"}, "cancel takes no host, so something else is meant"),
        ("orders", {"magic": 1}, "orders takes no magic"),
        ("accept", {"host": "--who=x", "why": "drill"}, "host is a name, not '--who=x'"),
    ],
)
def test_what_would_be_something_else_is_refused(name: str, told: dict[str, Any], why: str) -> None:
    assert problem(name, told).startswith(why)
    assert problem(name, told).lower().endswith("nothing was done")
    with pytest.raises(ValueError, match="othing was done"):
        words(name, told)


def test_a_reason_may_always_be_said() -> None:
    assert words("flatten", {"magic": 1, "why": "x"}) == ["flatten", "--magic=1"]


# ---- pyinfra ----


def options(*data: str, **more: Any) -> dict[str, Any]:
    return {"operations": ("operate.py",), "data": data, "yes": True, **more}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Command lines that would be run; each ends with 3."""
    lines: list[list[str]] = []

    class Running:
        def __init__(self, line: list[str], **_: Any) -> None:
            lines.append(line)

        def __enter__(self) -> Running:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self) -> int:
            return 3

    monkeypatch.setattr(subprocess, "Popen", Running)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lines
    for number, handler in before.items():
        signal.signal(number, handler)


def test_pyinfra_ends_in_the_same_command_and_with_its_status(started: list[list[str]]) -> None:
    with pytest.raises(SystemExit) as ended:
        operating.operate(Path("inventory/lab.yml"), options("do=halt", "why=two = words", "magic=7"))
    assert ended.value.code == 3
    path = str((Path.cwd() / "inventory/lab.yml").resolve())
    same = ["halt", "--reason=two = words", "--magic=7"]
    assert started == [[sys.executable, "-m", "mt5crs", "--inventory", path, *same]]


def test_pyinfra_acts_only_when_that_is_said_and_looks_always(started: list[list[str]]) -> None:
    with pytest.raises(PyinfraError, match="halt acts at once, without being asked: add -y"):
        operating.operate(Path("x.yml"), options("do=halt", "why=x", yes=False))
    with pytest.raises(SystemExit) as ended:
        operating.operate(Path("x.yml"), options("do=halt", "why=x", dry=True))
    assert (ended.value.code, started) == (0, [])
    with pytest.raises(SystemExit):
        operating.operate(Path("x.yml"), options("do=fleet", yes=False, dry=True))
    assert started[0][-1] == "fleet"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (options(), "name one with --data do=…: no task is named; there are preflight; "),
        (options("do=halt", "wyh=x"), r"operate\.py knows no wyh \(it takes do, host"),
        (options("do=halt"), "--data do=halt: halt has to be told why; nothing was done"),
        (options("do=halt", "why=x", limit=["inf"]), "--limit means nothing here"),
        (options("do=halt", "why=x", operations=("operate.py", "deploy.py")), "is run by itself"),
    ],
)
def test_pyinfra_is_told_in_one_sentence_and_nothing_is_done(
    given: dict[str, Any], why: str, started: list[list[str]]
) -> None:
    with pytest.raises(PyinfraError, match=why):
        operating.operate(Path("x.yml"), given)
    assert started == []


def test_operate_is_a_file_of_ours() -> None:
    assert command_line.is_ours({"operations": ("operate.py",)})
    assert (PROJECT / command_line.OPERATE).is_file()
