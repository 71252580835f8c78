"""The table of transitions, its diagram in the documentation, and that it leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt5crs_release.errors import FailedError
from mt5crs_release.generations import machine

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


@pytest.mark.parametrize("event", ["unhealthy", "deadline", "interrupted", "revert", "boot"])
def test_what_was_confirmed_once_is_kept_whatever_ends_its_attempt(event: str) -> None:
    assert machine.advance(machine.REVERTING, machine.revert_ending(event, proven=True)) == machine.CONFIRMED
    ended = machine.advance(machine.REVERTING, machine.revert_ending(event, proven=False))
    assert ended == (machine.FAILED if event == "unhealthy" else machine.REVERTED)


@pytest.mark.parametrize("event", ["differs", "unhealthy", "inconclusive", "interrupted"])
def test_what_was_confirmed_once_is_kept_by_a_comparison(event: str) -> None:
    assert machine.advance(machine.STANDBY, machine.standby_ending(event, proven=True)) == machine.CONFIRMED
    ended = machine.advance(machine.STANDBY, machine.standby_ending(event, proven=False))
    assert ended in (machine.FAILED, machine.REVERTED)


def test_failed_generation_needs_force() -> None:
    with pytest.raises(FailedError):
        machine.advance(machine.FAILED, "activate")
    assert machine.advance(machine.FAILED, "force") == machine.ACTIVATING
