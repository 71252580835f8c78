"""A run that pyinfra itself ends is never told as one that went well."""

from __future__ import annotations

import importlib
import sys

import click
import gevent.monkey
import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state

from deploy.operations.run import given_up


@pytest.mark.parametrize(
    ("kind", "cause", "said"),
    [
        ("WrappedError", PyinfraError("over 0% of hosts failed"), "over 0% of hosts failed"),
        ("UnexpectedInternalError", EOFError("EOF when reading a line"), "EOF when reading a line"),
        ("CliError", "no such file", "no such file"),
    ],
)
def test_what_pyinfra_raises_is_told(
    monkeypatch: pytest.MonkeyPatch, kind: str, cause: object, said: str
) -> None:
    # Importing pyinfra's command line replaces the threads of the whole process, pytest-xdist's too.
    monkeypatch.setattr(gevent.monkey, "patch_all", lambda **_: None)
    error: click.ClickException = getattr(importlib.import_module("pyinfra_cli.exceptions"), kind)(cause)
    told: list[str] = []

    def end() -> None:
        found = sys.exc_info()[1]
        assert found is not None
        told.extend(failure.message for failure in given_up(found))

    def run() -> None:
        with click.Context(click.Command("pyinfra")) as context:
            context.call_on_close(end)
            raise error

    with pytest.raises(click.ClickException):
        run()
    assert told == [said]


def test_hosts_that_pyinfra_gave_up_are_named() -> None:
    state = State(Inventory((["inf-01", "inf-02"], {})), Config())
    with ctx_state.use(state):
        assert given_up(SystemExit(0)) == []
        state.failed_hosts.add(state.inventory.get_host("inf-02"))
        (failure,) = given_up(SystemExit(1))
    assert failure.host == "inf-02"
    assert failure.remedy
