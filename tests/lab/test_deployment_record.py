"""A killed deployment is found, named and undone by the next run; the Hub's records say so."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.fleet.controller import ACTIVATE_FIRST, Controller
from tests.lab.deployers import DECIDED, begin, kept, until
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_next_run_settles_what_a_stopped_one_left(fleet: Fleet, how: signal.Signals) -> None:
    fleet.override(reconciler_log_level="DEBUG" if how is signal.SIGKILL else "WARNING")
    running = begin(fleet.inventory)
    stopped = until(fleet.lab, "activate")
    os.killpg(running.pid, how)
    assert running.wait(timeout=120) == (-9 if how is signal.SIGKILL else 130)

    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert f"unfinished deployment {stopped[:8]}" in ran.output
    assert fleet.running()
    records = {entry["id"]: entry for entry in kept(fleet.lab)["deployments"]}
    assert records[stopped]["outcome"] == "undone"
    assert records[ran.record["id"]]["outcome"] == "changed"
    assert kept(fleet.lab)["holder"] is None


def test_two_deployers_at_once(fleet: Fleet) -> None:
    fleet.override(reconciler_log_level="ERROR")
    first = begin(fleet.inventory)
    holder = until(fleet.lab, "")
    # However slow the machine is, the first is not done before the second asks.
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        second = fleet.pyinfra()
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert second.status != 0
    assert f"id {holder}" in second.output
    assert second.record["outcome"] == "failed"
    assert first.wait(timeout=240) == 0
    assert fleet.running()


def activating_with_ansible(fleet: Fleet) -> Controller:
    """A deployment with Ansible that activates, on the first Inf host, what no host has seen."""
    fleet.override(reconciler_recheck_interval_s=round(10 + time.time() % 1e6 / 1e6, 6))
    running = Controller(fleet, "--tags", "reconciler", engine="ansible")
    running.wait_for(ACTIVATE_FIRST)
    return running


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ansible_told_to_stop_puts_back_what_it_began(fleet: Fleet, how: signal.Signals) -> None:
    before = fleet.generations()
    running = activating_with_ansible(fleet)
    running.hit(how)
    ran = running.end()
    assert ran.status == 128 + how, ran.output[-3000:]
    assert ran.record["put_back"] == ["reconciler on inf-01"]
    assert fleet.generations() == before
    assert fleet.running()
    found = kept(fleet.lab)
    assert found["holder"] is None
    assert [one["outcome"] for one in found["deployments"] if one["id"] == ran.record["id"]] == [
        "interrupted"
    ]


@pytest.mark.slow
def test_ansible_reads_from_the_host_what_became_of_a_lost_activation(fleet: Fleet) -> None:
    running = activating_with_ansible(fleet)
    fleet.lab.exec("inf-01", ["pkill", "-KILL", "-f", "^sshd-session: ops"])
    ran = running.end()
    assert ran.status == 0, ran.output[-3000:]
    assert "inf-01: connection lost in activate reconciler; read from the host" in ran.output
    activated = [
        span for span in ran.record["spans"] if (span["host"], span["step"]) == ("inf-01", "activate")
    ]
    assert len(activated) == 1
    assert fleet.running()


@pytest.mark.parametrize("engine", ["pyinfra", pytest.param("ansible", marks=pytest.mark.slow)])
def test_a_killed_rollback_of_the_fleet_is_finished_by_the_next_run(fleet: Fleet, engine: str) -> None:
    words = ("--data", "part=fleet") if engine == "pyinfra" else ("--tags", "fleet")
    before = fleet.generations()
    fleet.override(reconciler_log_level="DEBUG", strategy_log_level="DEBUG", gateway_log_level="DEBUG")
    assert fleet.pyinfra("--data", "strategy=all_at_once").status == 0
    released = fleet.generations()
    running = begin(fleet.inventory, "rollback.py" if engine == "pyinfra" else "rollback.yml", *words)
    killed = until(fleet.lab, DECIDED)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(timeout=60)
    # The same command again: what was not begun follows, and nobody goes back further than that.
    end = time.monotonic() + 60
    while True:
        if engine == "pyinfra":
            ran = fleet.pyinfra(*words, file="rollback.py")
        else:
            ran = fleet.playbook("rollback.yml", *words)
        # Ansible's workers outlive it until their task has ended, and the lock with them.
        if f"id {killed}" not in ran.output or "took the fleet's lock over" in ran.output:
            break
        assert time.monotonic() < end, ran.output[-3000:]
    assert "an interrupted rollback was found and is finished" in ran.output, ran.output[-3000:]
    assert released != fleet.generations() == before
    assert fleet.running()
    records = {entry["id"]: entry for entry in kept(fleet.lab)["deployments"]}
    assert records[killed]["outcome"] == "changed"
    assert kept(fleet.lab)["holder"] is None
