"""A deployment that changes what services share goes back as a whole, or the whole fleet stays on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from lab.handle import wait_until
from tests.lab.asking import Asker
from tests.lab.deployers import begin
from tests.lab.engines import Fleet, Ran
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SECONDS = 60.0
"""A service that is judged alone fails after 30 s, and so does the next one."""
SHARED = {"gateway_port": 5565, "gateway_pub_port": 5566}
FIRST, LAST = "inf-01", "inf-02"
FIRST_MAGIC = 880001
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
    before, beside = fleet.generations(), fleet.inventory.parent / "host_vars"
    beside.mkdir()
    yield fleet
    shutil.rmtree(beside)
    if fleet.generations() != before:
        fleet.override(fleet_alerts_firing="report")
        fleet.pyinfra("--data", "strategy=all_at_once")


def renumber(fleet: Fleet) -> set[int]:
    """Give every strategy another magic number, in variables of its host: those win over the project's."""
    numbers = dict(enumerate(fleet.hosts("strategy"), FIRST_MAGIC))
    for number, host in numbers.items():
        path = fleet.inventory.parent / "host_vars" / f"{host}.yml"
        path.write_text(json.dumps({"fleet_magic_number": number}))
    return set(numbers)


def waits(fleet: Fleet, host: str) -> bool:
    """Whether a host's reconciler is new and not confirmed."""
    return bool(fleet.status(host)["reconciler"]["state"] == "provisional")


def traded(fleet: Fleet) -> set[int]:
    """The magic numbers that the gateway lets anybody trade."""
    access = fleet.status("gtw-01")["gateway"]["access"]["list"]
    return {int(magic) for magic in access["limits"]}


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
    before, magics = fleet.generations(), traded(fleet)
    fleet.override(**SHARED)
    renumbered = renumber(fleet)
    # Step by step: one whose turn has not come asks at the port that it knows.
    with Asker(fleet.lab, LAST, "gateway") as asker:
        deployment = begin(fleet.inventory)
        wait_until(lambda: waits(fleet, FIRST), 120, f"{FIRST} to wait on the new port")
    assert asker.result["lost"] == []
    assert deployment.wait(timeout=240) == 0
    released = fleet.generations()
    assert released != before
    assert traded(fleet) == renumbered

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
    assert traded(fleet) == renumbered
    assert fleet.running()

    needs(fleet, "inf-02", **health)
    ran = roll_back(fleet, works_with)
    assert ran.status == 0, ran.output[-3000:]
    assert fleet.generations() == before
    assert traded(fleet) == magics
    assert fleet.running()
    assert ran.record["seconds"] < SECONDS
    changed = {(entry["host"], entry["service"]) for entry in ran.record["services"] if entry["changed"]}
    # The firewall goes along where the ports are.
    trading = {key for key in before if key[1] not in ("baseline", "monitoring")}
    assert changed == trading | {("gtw-01", "baseline")}
