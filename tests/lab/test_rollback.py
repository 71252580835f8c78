"""Rolling back one part restores its code, .env and unit, and leaves the others running."""

from __future__ import annotations

import pytest

from tests.lab.engines import Fleet, Ran
from tests.long_runs import MOLECULE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

PART = "reconciler"
ENGINES = ("pyinfra", pytest.param("ansible", marks=pytest.mark.slow(reason=MOLECULE)))
FILES = rf"""
cd /opt/mt5crs/{PART}/current && sha256sum .env units/* && readlink venv
pid=$(systemctl show -p MainPID --value mt5crs-{PART}.service)
tr '\0' '\n' </proc/$pid/environ | grep ^RECHECK_INTERVAL_S
"""


def installed(fleet: Fleet) -> dict[str, str]:
    return {host: fleet.lab.exec(host, ["sh", "-c", FILES]).stdout for host in fleet.hosts(PART)}


@pytest.fixture
def moved(fleet: Fleet) -> tuple[Fleet, dict[str, str]]:
    """The fleet after one more release of the reconciler, and what was installed before it."""
    before, pids = installed(fleet), fleet.pids()
    fleet.override(reconciler_recheck_interval_s=12.5)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert installed(fleet) != before
    # The strategy is bound to its reconciler, so it restarts with it.
    assert {key[1] for key, pid in fleet.pids().items() if pids[key] != pid} == {PART, "strategy"}
    return fleet, before


def roll_back(fleet: Fleet, engine: str) -> Ran:
    if engine == "ansible":
        return fleet.playbook("rollback.yml", "--tags", PART)
    return fleet.rollback_with_pyinfra(PART)


@pytest.mark.parametrize("engine", ENGINES)
def test_previous_generation_is_back(moved: tuple[Fleet, dict[str, str]], engine: str) -> None:
    fleet, before = moved
    pids, now = fleet.pids(), installed(fleet)
    looked = fleet.playbook("rollback.yml", "--tags", PART, "--check")
    assert looked.status == 0
    assert {host for host, count in looked.changed.items() if count} == set(fleet.hosts(PART))
    assert (installed(fleet), fleet.pids()) == (now, pids), "looking changes nothing"

    ran = roll_back(fleet, engine)
    assert ran.status == 0, ran.output[-3000:]
    assert installed(fleet) == before
    then = fleet.pids()
    assert then["gtw-01", "gateway"] == pids["gtw-01", "gateway"]
    assert all(then[host, PART] != pids[host, PART] for host in fleet.hosts(PART))
    assert fleet.running()
    assert {entry["service"] for entry in ran.record["services"] if entry["changed"]} == {PART}


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_never_confirmed_is_refused_with_a_list(fleet: Fleet, engine: str) -> None:
    generations = fleet.generations()
    if engine == "ansible":
        ran = fleet.playbook("rollback.yml", "--tags", PART, "-e", "to=0999-abcdef123456")
    else:
        ran = fleet.rollback_with_pyinfra(PART, "--data", "to=0999-abcdef123456")
    assert ran.status != 0
    assert "has no generation 0999-abcdef123456" in ran.output
    assert "choose with --to" in ran.output
    assert fleet.generations() == generations


def test_without_a_part_nothing_happens(fleet: Fleet) -> None:
    generations = fleet.generations()
    for ran in (fleet.playbook("rollback.yml"), fleet.pyinfra(file="rollback.py")):
        assert ran.status != 0
        assert "gateway" in ran.output
        assert "monitoring" in ran.output
        assert "othing was changed" in ran.output
    assert fleet.generations() == generations
