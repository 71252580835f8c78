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
