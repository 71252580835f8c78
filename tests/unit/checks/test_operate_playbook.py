"""Every task of operate.yml is a command of that name, called with words that it takes."""

from __future__ import annotations

from typing import Any

import click
import jinja2
import pytest
import yaml

from deploy.fleet.vault_password import PROJECT
from mt5crs.__main__ import OF_A_FLEET, LazyGroup, main

PLAY: dict[str, Any] = yaml.safe_load((PROJECT / "operate.yml").read_text())[1]
WORDS: dict[str, list[str]] = PLAY["vars"]["operate_words"]
NEEDS: dict[str, list[str]] = PLAY["vars"]["operate_needs"]
TOLD = {"why": "drill", "magic": "202401", "host": "inf-01", "order": "abc"}


def parsed(name: str, told: dict[str, str]) -> click.Context:
    """The command as it would run. click.UsageError when it would not."""
    assert isinstance(main, LazyGroup)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    words = [jinja2.Template(word).render(told) for word in WORDS[name]]
    return command.make_context(name, [word for word in words if word])


@pytest.mark.parametrize("name", sorted(WORDS))
def test_a_task_is_called_with_words_that_its_command_takes(name: str) -> None:
    assert name in OF_A_FLEET
    parsed(name, TOLD)
    needed = {key: TOLD[key] for key in NEEDS.get(name, ())}
    parsed(name, needed)


def test_nothing_is_done_without_its_tag() -> None:
    assert set(PLAY["tags"]) == {"never", *WORDS}
    assert set(NEEDS) <= set(WORDS)


def test_what_is_told_arrives() -> None:
    assert parsed("halt", TOLD).params | {"magic": 202401, "reason": "drill"} == parsed("halt", TOLD).params
    assert parsed("halt", {"why": "drill"}).params["magic"] is None
    assert parsed("accept", TOLD).params["host"] == "inf-01"
    assert parsed("resolve", TOLD).params["client_order_id"] == "abc"
