"""The load test against a gateway that runs, and against none."""

from pathlib import Path

import pytest

import pipeline.load
from mt5crs.operate.chosen import Target
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.settings.schema import load
from pipeline.load import on_gateway
from tests.unit.gateway.running import Running, running


def target(gateway: Running) -> Target:
    values = {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(gateway.port),
        "GATEWAY_PUB_PORT": str(gateway.pub_port),
        "GATEWAY_PUBLIC_KEY": gateway.public,
        "CLIENT_NAME": "ops",
        "CLIENT_SECRET_KEY": gateway.secrets["ops"],
    }
    return Target("gtw-01", load(ConnectionSettings, values))


def test_a_gateway_holds_what_it_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        held = on_gateway(target(gateway), 80, 1)
    assert held.answered + sum(held.errors.values()) == 80
    assert held.errors == {}
    assert held.p50_ms > 0


def test_no_gateway_is_no_answer_and_not_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.load, "TIMEOUT_S", 0.2)
    gateway = Running(tmp_path)
    try:
        held = on_gateway(target(gateway), 4, 1)
    finally:
        gateway.close()
    assert held.answered == 0
    assert sum(held.errors.values()) == 4
    assert held.problem is not None
