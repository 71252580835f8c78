"""The table of transitions, its diagram in the documentation, and that it leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt5crs_release import machine
from mt5crs_release.errors import FailedError

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/rollout.md"


def test_diagram_in_the_documentation_is_the_table() -> None:
    assert f"```mermaid\n{machine.mermaid()}\n```" in DOCUMENT.read_text()


def test_every_state_is_reached_and_every_pending_state_ends() -> None:
    reached = {machine.STAGED, *machine.TRANSITIONS.values()}
    assert reached == set(machine.STATES)
    for state in machine.PENDING:
        seen, todo = set(), [state]
        while todo:
            here = todo.pop()
            seen.add(here)
            todo += [
                after
                for (before, _), after in machine.TRANSITIONS.items()
                if before == here and after not in seen
            ]
        assert seen & {machine.REVERTED, machine.FAILED}


def test_what_is_not_in_the_table_does_not_happen() -> None:
    with pytest.raises(FailedError, match="staged cannot be told 'confirm'"):
        machine.advance(machine.STAGED, "confirm")


def test_failed_generation_needs_force() -> None:
    with pytest.raises(FailedError):
        machine.advance(machine.FAILED, "activate")
    assert machine.advance(machine.FAILED, "force") == machine.ACTIVATING
