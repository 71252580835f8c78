"""A strategy of one's own, with a library and a model: by either engine, changed and taken back alone."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from deploy.bundle import strategy_bundle, strategy_definition
from lab.state import PROJECT
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

EXAMPLE = PROJECT / "strategies/example_model"


def built(model: Path) -> str:
    """Build the example with another model; the name that stays its own."""
    example = msgspec.structs.replace(strategy_definition.read("example_model"), data={"model.json": model})
    return str(strategy_bundle.build(example, PROJECT / "dist")["file"])[len("strategy-") : -len(".tar")]


def models(fleet: Fleet) -> set[str]:
    """The version of the model on every host, as the strategy's process sees the path."""
    read = ["cat", "/opt/mt5crs/strategy/current/bundle-data/model.json"]
    return {json.loads(fleet.lab.exec(host, read).stdout)["version"] for host in fleet.hosts("strategy")}


def runtimes(fleet: Fleet) -> list[str]:
    """The runtime of every host's strategy."""
    read = ["readlink", "/opt/mt5crs/strategy/current/venv"]
    return [fleet.lab.exec(host, read).stdout for host in fleet.hosts("strategy")]


def test_a_new_model_restarts_the_strategy_alone_and_rolls_back_with_it(fleet: Fleet, tmp_path: Path) -> None:
    other = tmp_path / "model.json"
    other.write_text((EXAMPLE / "model.json").read_text().replace('"A"', '"B"'))
    first, second = built(EXAMPLE / "model.json"), built(other)
    fleet.override(strategy_bundle=first, strategy_strategy="example_model")
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert models(fleet) == {"A"}
    before, code = fleet.pids(), runtimes(fleet)

    fleet.override(strategy_bundle=second, strategy_strategy="example_model")
    ran = fleet.playbook("site.yml", "--tags", "strategy")
    assert ran.status == 0, ran.output[-3000:]
    assert models(fleet) == {"B"}
    after = fleet.pids()
    assert {service for (host, service), pid in after.items() if before[host, service] != pid} == {"strategy"}
    assert runtimes(fleet) == code

    ran = fleet.playbook("rollback.yml", "--tags", "strategy")
    assert ran.status == 0, ran.output[-3000:]
    assert models(fleet) == {"A"}
    back = fleet.pids()
    assert {service for (host, service), pid in back.items() if after[host, service] != pid} == {"strategy"}
    assert fleet.running()
