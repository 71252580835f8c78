"""Every Windows task uses options that the real modules document, with the right types."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.windows_model.build import MODULES, argument_spec, documented
from tests.windows_model.tasks import Task, problems, tasks

PROJECT = Path(__file__).resolve().parents[3]


@cache
def real() -> dict[str, dict[str, Any]]:
    """Options of the real modules, from the installed collections."""
    return documented(f"{collection}.{name}" for collection, names in MODULES.items() for name in names)


def test_every_task_fits_the_real_modules() -> None:
    found = tasks(PROJECT)
    assert len(found) > 30
    assert {task.file.parent.name for task in found} >= {"windows", "handlers"}
    assert [problem for task in found for problem in problems(task, real())] == []


def test_every_modelled_module_is_used_or_needed() -> None:
    asked = {"ansible.windows.win_ping", "ansible.windows.win_service_info"}  # by people, by tests/verify
    used = {task.module for task in tasks(PROJECT)} | asked
    assert used == {f"{collection}.{name}" for collection, names in MODULES.items() for name in names}


@pytest.mark.parametrize(
    ("module", "options", "problem"),
    [
        ("ansible.windows.win_service", {"name": "x", "start": "auto"}, "start is no option"),
        ("ansible.windows.win_service", {"name": "x", "start_mode": "boot"}, "choices are"),
        ("ansible.windows.win_service", {"start_mode": "auto"}, "name is missing"),
        ("ansible.windows.win_service", {"name": "x", "failure_actions": "restart"}, "must be list"),
        (
            "ansible.windows.win_service",
            {"name": "x", "failure_actions": [{"type": "reboot!"}]},
            "failure_actions[0].type",
        ),
        ("ansible.windows.win_file", {"path": "x", "state": True}, "must be str"),
        ("ansible.windows.win_filee", {"path": "x"}, "not among the documented modules"),
        ("community.windows.win_firewall_rule", {"name": "x", "remote_ip": "1"}, "remote_ip is no option"),
    ],
)
def test_a_wrong_task_is_found(module: str, options: dict[str, Any], problem: str) -> None:
    found = problems(Task(Path("x.yml"), "task", module, options), real())
    assert len(found) == 1
    assert problem in found[0]


def test_the_model_takes_the_documented_options_only() -> None:
    spec = argument_spec(real()["ansible.windows.win_service"])
    assert spec["name"] == {"type": "str", "required": True}
    assert spec["start_mode"]["choices"] == ["auto", "delayed", "disabled", "manual"]
    assert set(spec["failure_actions"]["options"]) == {"type", "delay_ms"}
    assert spec["password"]["no_log"] is True
