"""A deployment that changes what services share goes back as a whole, or the whole fleet stays on it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.engines import Fleet, Ran
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SECONDS = 60.0
"""A service that is judged alone fails after 30 s, and so does the next one."""
# Between the steps the Inf hosts ask at the old port, which on a slow machine is told of as a silent gateway.
SHARED = {
    "fleet_alerts_firing": "report",
    "gateway_port": 5565,
    "gateway_pub_port": 5566,
    "fleet_magic_number": "{{ 880001 + groups['inf'].index(inventory_hostname) }}",
}
HEALTH = """
import json, pathlib, sys
state = json.loads(pathlib.Path("/opt/mt5crs/strategy/state.json").read_text())
path = pathlib.Path("/opt/mt5crs/strategy/generations", state["history"][-2], "manifest.json")
manifest = json.loads(path.read_text())
manifest["health"] |= json.loads(sys.argv[1])
path.write_text(json.dumps(manifest))
"""


@pytest.fixture
def sharing(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet; a test that fails must not leave it to the next one, step by step, with the new ports."""
    before = fleet.generations()
    yield fleet
    if fleet.generations() != before:
        fleet.override(fleet_alerts_firing="report")
        fleet.pyinfra("--data", "strategy=all_at_once")


def roll_back(fleet: Fleet, engine: str) -> Ran:
    if engine == "ansible":
        return fleet.playbook("rollback.yml", "--tags", "fleet")
    return fleet.rollback_with_pyinfra("fleet")


def needs(fleet: Fleet, host: str, **health: object) -> None:
    """Change what the strategy's generation before the running one takes for healthy on a host."""
    fleet.lab.exec(host, ["python3", "-c", HEALTH, json.dumps(health)])


@pytest.mark.parametrize(
    ("fails_with", "works_with"),
    [("pyinfra", "ansible"), pytest.param("ansible", "pyinfra", marks=pytest.mark.slow(reason=OTHER_ENGINE))],
)
def test_what_services_share_goes_back_with_the_whole_fleet_or_not_at_all(
    sharing: Fleet, fails_with: str, works_with: str
) -> None:
    fleet = sharing
    before = fleet.generations()
    fleet.override(**SHARED)
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]
    released = fleet.generations()
    assert released != before

    manifest = f"/opt/mt5crs/strategy/generations/{before['inf-02', 'strategy']}/manifest.json"
    health = json.loads(fleet.lab.exec("inf-02", ["cat", manifest]).stdout)["health"]
    needs(fleet, "inf-02", command=["sh", "-c", "echo nothing is right; exit 1"], healthy_deadline_s=15)
    ran = roll_back(fleet, fails_with)
    assert ran.status != 0
    assert "nothing is right" in ran.output, ran.output[-3000:]
    (failure,) = ran.record["failures"]
    assert (failure["host"], failure["step"]) == ("inf-02", "judge")
    assert "gateway on gtw-01" in ran.record["put_back"]
    assert fleet.generations() == released
    assert fleet.running()

    needs(fleet, "inf-02", **health)
    ran = roll_back(fleet, works_with)
    assert ran.status == 0, ran.output[-3000:]
    assert fleet.generations() == before
    assert fleet.running()
    assert ran.record["seconds"] < SECONDS
    changed = {(entry["host"], entry["service"]) for entry in ran.record["services"] if entry["changed"]}
    # The firewall goes along where the ports are.
    trading = {key for key in before if key[1] not in ("baseline", "monitoring")}
    assert changed == trading | {("gtw-01", "baseline")}
