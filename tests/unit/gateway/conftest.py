from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gateway.existing_clients import Door, Plain
from tests.unit.gateway.running import Caller, Running, running


@pytest.fixture
def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    """A gateway with the settings that a test gives it (`running.with_settings`)."""
    with running(tmp_path, **getattr(request, "param", {})) as started:
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


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One gateway with the legacy adapter on, for many existing clients."""
    gateway = Door(tmp_path_factory.mktemp("door"))
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.close()


@pytest.fixture
def plain(door: Door) -> Iterator[Plain]:
    """An existing client with a magic number of its own; the broker is without faults before and after."""
    yield door.newcomer()
    door.fault()
