"""What pyinfra deployed, both engines find unchanged; the other way round: test_new_fleet.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.engines import Fleet, run

ENV = "/opt/mt5crs/reconciler/current/.env"
KEPT = "/root/kept.env"
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


def test_drift_is_what_somebody_changed_by_hand(fleet: Fleet) -> None:
    assert drift(fleet) == (0, {"differs": [], "unknown": {}})
    fleet.lab.exec("inf-01", ["cp", "-a", ENV, KEPT])
    fleet.lab.exec("inf-01", ["sh", "-c", f"echo '# by hand' >> {ENV}"])
    fleet.lab.exec("inf-02", ["systemctl", "stop", "ssh.service"])
    try:
        status, found = drift(fleet)
    finally:
        fleet.lab.exec("inf-02", ["systemctl", "start", "ssh.service"])
    assert status == 1, "unknown is not the same"
    assert "refused" in found["unknown"]["inf-02"]
    try:
        status, found = drift(fleet)
    finally:
        fleet.lab.exec("inf-01", ["cp", "-a", KEPT, ENV])
    assert status == 2
    (line,) = found["differs"]
    assert (line["host"], line["service"]) == ("inf-01", "reconciler")
    assert "not as it was staged" in line["runs"]
    assert drift(fleet) == (0, {"differs": [], "unknown": {}})


def drift(fleet: Fleet) -> tuple[int, dict[str, Any]]:
    ran = run("mt5crs", "--inventory", str(fleet.inventory), "config", "drift", "--json")
    return ran.status, json.loads(ran.output[ran.output.index("{") : ran.output.rindex("}") + 1])
