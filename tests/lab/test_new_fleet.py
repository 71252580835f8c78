"""A fleet's first deployment: check mode before it does nothing, and pyinfra finds it as Ansible left it.

Molecule's scenario `default` runs the one before it deploys its fleet, the other afterwards. Outside Molecule
they have a lab of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import fleet as labs
from lab.handle import Lab
from tests.lab.conftest import lab_name
from tests.lab.engines import Fleet
from tests.long_runs import MOLECULE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.slow(reason=MOLECULE)]

OWN = "new-fleet"


@pytest.fixture(scope="module")
def new() -> Iterator[Fleet]:
    """Molecule's fleet, or a lab of its own that was never deployed to."""
    if "MOLECULE_SCENARIO_NAME" in os.environ:
        yield Fleet(Lab.open(lab_name()))
        return
    labs.down(OWN, lambda _phase: None)
    labs.up(OWN, lambda _phase: None, 3)
    yield Fleet(Lab.open(OWN))
    labs.down(OWN, lambda _phase: None)


def test_check_mode_says_that_every_host_changes_and_does_nothing(new: Fleet) -> None:
    looked = new.playbook("site.yml", "--check")
    assert looked.status == 0, looked.output[-3000:]
    assert set(looked.changed) == {host.name for host in new.lab.plan.hosts}
    assert all(count > 0 for count in looked.changed.values()), looked.output[-3000:]
    nothing = ["sh", "-c", "ls -A /opt/mt5crs 2>/dev/null || true"]
    assert {new.lab.exec(host.name, nothing).stdout for host in new.lab.plan.hosts} == {""}


def test_pyinfra_finds_nothing_to_change_after_ansible(new: Fleet) -> None:
    if "MOLECULE_SCENARIO_NAME" not in os.environ:  # it has just converged, twice
        ran = new.playbook("site.yml")
        assert ran.status == 0, ran.output[-3000:]
    before = new.generations()
    again = new.pyinfra()
    assert again.status == 0, again.output[-3000:]
    assert again.record["outcome"] == "unchanged", again.output[-3000:]
    assert new.generations() == before
    assert new.running()
