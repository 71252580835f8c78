"""A run that pyinfra itself ends is never told as one that went well."""

from __future__ import annotations

import sys

import click
import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state
from pyinfra_cli.exceptions import CliError, UnexpectedInternalError, WrappedError

from deploy.run import given_up


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WrappedError(PyinfraError("over 0% of hosts failed")), "over 0% of hosts failed"),
        (UnexpectedInternalError(EOFError("EOF when reading a line")), "EOF when reading a line"),
        (CliError("no such file"), "no such file"),
    ],
)
def test_what_pyinfra_raises_is_told(error: click.ClickException, said: str) -> None:
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
