"""What pyinfra deployed, both engines find unchanged; the other way round: test_new_fleet.py."""

from __future__ import annotations

import pytest

from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def test_ansible_finds_nothing_to_change_after_pyinfra(fleet: Fleet) -> None:
    ran = fleet.playbook("site.yml", "--check", "--diff")
    assert ran.status == 0, ran.output[-3000:]
    assert len(ran.changed) == len(fleet.lab.plan.hosts)
    assert set(ran.changed.values()) == {0}, ran.output[-6000:]


def test_a_second_run_changes_nothing(fleet: Fleet) -> None:
    pids = fleet.pids()
    ran = fleet.pyinfra()
    assert ran.status == 0
    assert ran.record["outcome"] == "unchanged"
    assert {phase["changed"] for phase in ran.record["phases"]} <= {0}
    assert fleet.pids() == pids
