"""Changing one setting restarts the services that use it, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("settings", "restarted"),
    [
        ({"strategy_tick_interval_s": 1.5}, {"strategy"}),
        # The strategy is bound to its reconciler, so it restarts with it, on the generation it had.
        ({"reconciler_recheck_interval_s": 11.0}, {"reconciler", "strategy"}),
    ],
)
def test_only_its_services_restart(fleet: Fleet, settings: dict[str, Any], restarted: set[str]) -> None:
    pids, generations = fleet.pids(), fleet.generations()
    fleet.override(**settings)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    changed = {service for (_, service), pid in fleet.pids().items() if pids[_, service] != pid}
    assert changed == restarted
    part = next(iter(settings)).partition("_")[0]
    moved = {key for key, generation in fleet.generations().items() if generations[key] != generation}
    assert moved == {(host, part) for host in fleet.hosts(part)}


def test_looking_changes_nothing_and_says_what_would(fleet: Fleet) -> None:
    pids, generations = fleet.pids(), fleet.generations()
    fleet.override(strategy_tick_interval_s=1.7)
    dry = fleet.pyinfra("--dry", yes=False)
    assert dry.status == 0, dry.output[-3000:]
    for number, host in enumerate(fleet.hosts("strategy"), 1):
        assert f"Activate {number}/2 {host} | strategy" in dry.output
    assert "| reconciler" not in dry.output
    check = fleet.playbook("site.yml", "--check", "--tags", "gateway,reconciler,strategy")
    assert check.status == 0
    assert {host for host, count in check.changed.items() if count} == set(fleet.hosts("strategy"))
    assert (fleet.pids(), fleet.generations()) == (pids, generations)
