"""Both engines bring a host to the same state: what one deployed, the other finds unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import fleet as labs
from lab.handle import Lab
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

FRESH = "parity"


@pytest.fixture
def fresh() -> Iterator[Fleet]:
    """A lab of its own, never deployed to."""
    labs.down(FRESH, lambda _phase: None)
    labs.up(FRESH, lambda _phase: None, 3)
    yield Fleet(Lab.open(FRESH))
    labs.down(FRESH, lambda _phase: None)


def test_ansible_finds_nothing_to_change_after_pyinfra(fleet: Fleet) -> None:
    ran = fleet.playbook("site.yml", "--check", "--diff")
    assert ran.status == 0, ran.output[-3000:]
    assert len(ran.changed) == len(fleet.lab.plan.hosts)
    assert set(ran.changed.values()) == {0}, ran.output[-6000:]


def test_pyinfra_finds_nothing_to_change_after_ansible(fresh: Fleet) -> None:
    looked = fresh.playbook("site.yml", "--check")
    assert looked.status == 0, looked.output[-3000:]
    assert all(count > 0 for count in looked.changed.values()), (
        "check mode must say that a fresh host changes"
    )
    nothing = ["sh", "-c", "ls -A /opt/mt5crs 2>/dev/null || true"]
    assert {fresh.lab.exec(host.name, nothing).stdout for host in fresh.lab.plan.hosts} == {""}

    ran = fresh.playbook("site.yml")
    assert ran.status == 0, ran.output[-3000:]
    assert ran.record["outcome"] == "changed"
    before = fresh.generations()
    again = fresh.pyinfra()
    assert again.status == 0, again.output[-3000:]
    assert again.record["outcome"] == "unchanged", again.output[-3000:]
    assert fresh.generations() == before
    assert fresh.running()


def test_a_second_run_changes_nothing(fleet: Fleet) -> None:
    pids = fleet.pids()
    ran = fleet.pyinfra()
    assert ran.status == 0
    assert ran.record["outcome"] == "unchanged"
    assert {phase["changed"] for phase in ran.record["phases"]} <= {0}
    assert fleet.pids() == pids
