from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gateway.running import Caller, Running, running


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def trader(gateway: Running) -> Caller:
    caller = gateway.client("strategy")
    caller.lease()
    return caller


@pytest.fixture(scope="module")
def bad_input(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Caller]]:
    """One gateway for many refusals: none of them may change anything."""
    with running(tmp_path_factory.mktemp("bad-input")) as started:
        caller = started.client("strategy")
        caller.lease()
        yield started, caller
