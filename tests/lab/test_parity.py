"""What pyinfra deployed, both engines find unchanged; the other way round: test_new_fleet.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.engines import Fleet, run

ENV = "/opt/mt5crs/reconciler/current/.env"
KEPT = "/root/kept.env"
AS_WANTED: dict[str, Any] = {"differs": [], "ignored": [], "ignores_nothing": [], "unknown": {}}
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
    assert drift(fleet) == (0, AS_WANTED)
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
    assert line["what"] == [], "a damaged file is no setting that could be left out"
    assert drift(fleet) == (0, AS_WANTED)


def test_drift_names_settings_and_leaves_out_what_it_is_told_to(fleet: Fleet) -> None:
    fleet.override(reconciler_log_level="DEBUG", reconciler_sync_timeout_s=3.5)
    status, found = drift(fleet)
    assert status == 2
    settings = ["reconciler_log_level", "reconciler_sync_timeout_s"]
    inf = fleet.hosts("reconciler")
    assert {(one["host"], *one["what"]) for one in found["differs"]} == {(host, *settings) for host in inf}
    status, found = drift(fleet, "--ignore", f"{inf[0]}:reconciler", "--ignore", "*_log_level")
    assert status == 2
    assert [(one["host"], one["what"]) for one in found["differs"]] == [
        (host, ["reconciler_sync_timeout_s"]) for host in inf[1:]
    ]
    assert len(found["ignored"]) == len(inf) + 1
    assert drift(fleet, "--ignore", "reconciler_*")[0] == 0


def drift(fleet: Fleet, *words: str) -> tuple[int, dict[str, Any]]:
    ran = run("mt5crs", "--inventory", str(fleet.inventory), "config", "drift", "--json", *words)
    return ran.status, json.loads(ran.output[ran.output.index("{") : ran.output.rindex("}") + 1])
