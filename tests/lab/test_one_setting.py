"""Changing one setting restarts the services that use it, and no other."""

from __future__ import annotations

import pytest

from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

Pids = dict[tuple[str, str], str]
Generations = dict[tuple[str, str], str]
"""Both by host and service."""


def restarted(before: Pids, now: Pids) -> set[str]:
    """The services of which some host has another process."""
    return {service for (host, service), pid in now.items() if before[host, service] != pid}


def moved(before: Generations, now: Generations) -> set[tuple[str, str]]:
    """What is on another generation."""
    return {key for key, generation in now.items() if before[key] != generation}


@pytest.mark.slow(reason="what a release of the reconciler restarts is looked at in test_rollback.py as well")
def test_the_strategy_restarts_with_its_reconciler_on_the_generation_it_had(fleet: Fleet) -> None:
    pids, generations = fleet.pids(), fleet.generations()
    fleet.override(reconciler_recheck_interval_s=11.0)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert restarted(pids, fleet.pids()) == {"reconciler", "strategy"}
    hosts = fleet.hosts("reconciler")
    assert moved(generations, fleet.generations()) == {(host, "reconciler") for host in hosts}


def test_what_looking_says_is_what_changes(fleet: Fleet) -> None:
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
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert restarted(pids, fleet.pids()) == {"strategy"}
    hosts = fleet.hosts("strategy")
    assert moved(generations, fleet.generations()) == {(host, "strategy") for host in hosts}
