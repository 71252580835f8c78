"""A strategy of one's own, with a library and a model: by either engine, changed and taken back alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from deploy.bundle import strategy_bundle, strategy_definition
from lab.state import PROJECT
from tests.lab.engines import Fleet, Ran

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

EXAMPLE = PROJECT / "strategies/example_model"


def built(file: Path) -> str:
    """Build the example with another model; the name that stays its own."""
    example = msgspec.structs.replace(strategy_definition.read("example_model"), data={"model.json": file})
    return str(strategy_bundle.build(example, PROJECT / "dist")["file"])[len("strategy-") : -len(".tar")]


def model(under: Path, version: str) -> Path:
    """The example's model under another version."""
    path = under / version / "model.json"
    path.parent.mkdir()
    path.write_text((EXAMPLE / "model.json").read_text().replace('"A"', f'"{version}"'))
    return path


def models(fleet: Fleet) -> set[str]:
    """The version of the model on every host, as the strategy's process sees the path."""
    read = ["cat", "/opt/mt5crs/strategy/current/bundle-data/model.json"]
    return {json.loads(fleet.lab.exec(host, read).stdout)["version"] for host in fleet.hosts("strategy")}


def runtimes(fleet: Fleet) -> list[str]:
    """The runtime of every host's strategy."""
    read = ["readlink", "/opt/mt5crs/strategy/current/venv"]
    return [fleet.lab.exec(host, read).stdout for host in fleet.hosts("strategy")]


Came = tuple[str, str, str, int]
"""Host (or the Hub's store), name of the bundle, from where, bytes."""


def came(ran: Ran) -> set[Came]:
    """What the record of a run counts."""
    return {
        ("store" if one["to_store"] else one["host"], one["bundle"], one["source"], one["bytes"])
        for one in ran.record["transfers"]
    }


def size_of(name: str) -> tuple[str, int]:
    """File and size of a strategy's bundle."""
    path = PROJECT / f"dist/strategies/strategy-{name}.tar"
    return path.name, path.stat().st_size


def once(fleet: Fleet, name: str) -> set[Came]:
    """One upload, to the Hub's release store; every host that runs it fetched it from there."""
    file, size = size_of(name)
    fetched = {(host, file, "hub-01", size) for host in fleet.hosts("strategy")}
    return {("store", file, "controller", size), *fetched}


@contextmanager
def store_dies(fleet: Fleet, host: str) -> Iterator[None]:
    """Kill what serves the store on the Hub as soon as part of a bundle has come to a host."""
    part_came = "timeout 120 sh -c 'until [ -s \"$(ls /opt/mt5crs/bundles/*.part)\" ]; do sleep 0.05; done'"
    listener = "ss -Hltnp 'sport = :8084' | sed 's/.*pid=\\([0-9]*\\).*/\\1/'"
    fleet.lab.exec(host, ["sh", "-c", "rm -f /opt/mt5crs/bundles/*.part"])  # of a run before

    def kill() -> None:
        fleet.lab.exec(host, ["sh", "-c", f"{part_came} 2>/dev/null"], timeout_s=130)
        fleet.lab.exec("hub-01", ["sh", "-c", f"kill -KILL $({listener})"])

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        yield
        killed.result()


def test_a_new_model_restarts_the_strategy_alone_and_rolls_back_with_it(fleet: Fleet, tmp_path: Path) -> None:
    # Of this run alone, so that neither hosts nor the store have them from one before.
    a, b = (f"{letter}-{uuid4().hex[:8]}" for letter in "AB")
    first, second = (built(model(tmp_path, version)) for version in (a, b))
    fleet.override(strategy_bundle=first, strategy_strategy="example_model")
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert models(fleet) == {a}
    before, code = fleet.pids(), runtimes(fleet)
    assert came(ran) >= once(fleet, first), ran.output[-3000:]

    fleet.override(strategy_bundle=second, strategy_strategy="example_model")
    ran = fleet.playbook("site.yml", "--tags", "strategy")
    assert ran.status == 0, ran.output[-3000:]
    assert models(fleet) == {b}
    assert came(ran) == once(fleet, second), ran.output[-3000:]
    after = fleet.pids()
    assert {service for (host, service), pid in after.items() if before[host, service] != pid} == {"strategy"}
    assert runtimes(fleet) == code

    ran = fleet.playbook("rollback.yml", "--tags", "strategy")
    assert ran.status == 0, ran.output[-3000:]
    assert models(fleet) == {a}
    back = fleet.pids()
    assert {service for (host, service), pid in back.items() if after[host, service] != pid} == {"strategy"}
    assert fleet.running()


@pytest.mark.slow(reason="the same at once on loopback: tests/unit/rollout/test_distribution.py")
def test_a_store_that_dies_while_hosts_fetch_is_replaced_by_direct_uploads(
    fleet: Fleet, tmp_path: Path
) -> None:
    version = f"C-{uuid4().hex[:8]}"
    name = built(model(tmp_path, version))
    fleet.override(strategy_bundle=name, strategy_strategy="example_model", fleet_store_total_mb_s=2.0)
    hosts, (file, size) = fleet.hosts("strategy"), size_of(name)
    with store_dies(fleet, hosts[0]):
        ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert models(fleet) == {version}
    directly = {("store", file, "controller", size), *((host, file, "controller", size) for host in hosts)}
    assert came(ran) >= directly, ran.output[-3000:]
    told = ran.output.count("its bundles go there directly: the Hub's store")
    assert told == len(hosts), ran.output[-3000:]
