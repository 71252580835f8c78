"""A killed deployment is found, named and undone by the next run; the Hub's records say so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.fleet.controller import ACTIVATE_FIRST, Controller, Moment
from tests.lab.deployers import JUDGED, TOOL, begin, kept, until
from tests.lab.engines import Fleet
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

KILLED = "killed it leaves more to settle than interrupted, and that is tried in every run"
LAST_WAITS = Moment("the last reconciler waits", "inf-02", "reconciler", ("provisional",))
CUT = ["pkill", "-KILL", "-f", "^sshd-session: ops"]
CUT_A_CONFIRMATION = f"""
import fcntl, glob, os, subprocess, sys, time

def waits():
    for path in glob.glob("/proc/[0-9]*"):
        try:
            words = open(path + "/cmdline", "rb").read().split(b"\\0")
            opened = [os.readlink(one) for one in glob.glob(path + "/fd/*")]
        except OSError:
            continue
        if b"confirm" in words and lock.name in opened:
            return True
    return False

lock = open("/opt/mt5crs/reconciler/lock")
fcntl.flock(lock, fcntl.LOCK_EX)
end = time.monotonic() + 60
while not waits():
    if time.monotonic() > end:
        sys.exit("nobody confirms")
    time.sleep(0.01)
subprocess.run({CUT}, check=True)
"""


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow(reason=KILLED))]
)
def test_the_next_run_settles_what_a_stopped_one_left(fleet: Fleet, how: signal.Signals) -> None:
    fleet.override(reconciler_recheck_interval_s=12.5 if how is signal.SIGKILL else 13.5)
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
    fleet.override(reconciler_recheck_interval_s=14.5)
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


def with_ansible_until(fleet: Fleet, moment: Moment) -> Controller:
    """A deployment with Ansible, of what no host has seen, that has come to this moment."""
    fleet.override(reconciler_recheck_interval_s=round(10 + time.time() % 1e6 / 1e6, 6))
    running = Controller(fleet, "--tags", "reconciler", engine="ansible")
    running.wait_for(moment)
    return running


@pytest.mark.slow(reason=OTHER_ENGINE)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ansible_told_to_stop_puts_back_what_it_began(fleet: Fleet, how: signal.Signals) -> None:
    before = fleet.generations()
    running = with_ansible_until(fleet, ACTIVATE_FIRST)
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


def cut_in_activation(fleet: Fleet) -> None:
    """End the connections to inf-01; the activation there is on its way."""
    fleet.lab.exec("inf-01", CUT)


def cut_in_confirmation(fleet: Fleet) -> None:
    """The same once `confirm` runs on inf-01: it waits for its lock, which is held for that long."""
    fleet.lab.exec("inf-01", ["/usr/bin/python3", "-c", CUT_A_CONFIRMATION], timeout_s=100)


@pytest.mark.slow(reason=OTHER_ENGINE)
@pytest.mark.parametrize(
    ("verb", "moment", "cut", "how"),
    [
        ("activate", ACTIVATE_FIRST, cut_in_activation, "read from the host"),
        ("confirm", LAST_WAITS, cut_in_confirmation, "made again"),
    ],
    ids=("activate", "confirm"),
)
def test_ansible_finds_out_what_became_of_a_call_whose_connection_was_lost(
    fleet: Fleet, verb: str, moment: Moment, cut: Callable[[Fleet], None], how: str
) -> None:
    running = with_ansible_until(fleet, moment)
    cut(fleet)
    ran = running.end()
    assert ran.status == 0, ran.output[-3000:]
    assert f"inf-01: connection lost in {verb} reconciler; {how}" in ran.output
    made = [span for span in ran.record["spans"] if (span["host"], span["step"]) == ("inf-01", verb)]
    assert len(made) == 1
    assert ran.record["outcome"] == "changed"
    assert fleet.running()


@pytest.mark.slow(reason=OTHER_ENGINE)
def test_ansible_puts_back_what_was_confirmed_on_a_host_that_comes_back_in_time(fleet: Fleet) -> None:
    before = fleet.generations()
    running = with_ansible_until(fleet, LAST_WAITS)
    # So that it cannot be confirmed; on the other host it is.
    fleet.lab.exec("inf-02", [TOOL, "revert", "reconciler"])
    running.wait_for_output("PLAY [Confirm monitoring]")
    fleet.lab.exec("inf-01", ["systemctl", "stop", "ssh.socket", "ssh.service"], check=False)
    try:
        fleet.lab.exec("inf-01", CUT, check=False)
        running.wait_for_output("UNREACHABLE")
    finally:
        fleet.lab.exec("inf-01", ["systemctl", "start", "ssh.service"])
    ran = running.end()
    assert ran.status == 2, ran.output[-3000:]
    assert "inf-01: connection lost in revert reconciler; made again" in ran.output, ran.output[-3000:]
    assert "reconciler on inf-01" in ran.record["put_back"]
    assert {failure["host"] for failure in ran.record["failures"]} == {"inf-02"}
    assert fleet.generations() == before
    assert fleet.running()


@pytest.mark.slow(reason="on a fleet of both systems it is tried in every run (test_windows_gateway.py)")
@pytest.mark.parametrize("engine", ["pyinfra", "ansible"])
def test_a_killed_rollback_of_the_fleet_is_settled_by_the_next_run(fleet: Fleet, engine: str) -> None:
    words = ("--data", "part=fleet") if engine == "pyinfra" else ("--tags", "fleet")
    before = fleet.generations()
    fleet.override(
        reconciler_recheck_interval_s=12.5, strategy_order_timeout_s=5.5, gateway_quote_life_s=901.0
    )
    assert fleet.pyinfra("--data", "strategy=all_at_once").status == 0
    released = fleet.generations()
    running = begin(fleet.inventory, "rollback.py" if engine == "pyinfra" else "rollback.yml", *words)
    killed = until(fleet.lab, JUDGED)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(timeout=60)
    # The same command again: what is held is put back, then the fleet goes back, and nobody further.
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
    assert ran.status == 0, ran.output[-3000:]
    assert f"unfinished deployment {killed[:8]}" in ran.output, ran.output[-3000:]
    assert f"gateway {before['gtw-01', 'gateway']} on gtw-01 put back" in ran.output, ran.output[-3000:]
    assert released != fleet.generations() == before
    assert fleet.running()
    records = {entry["id"]: entry for entry in kept(fleet.lab)["deployments"]}
    assert records[killed]["outcome"] == "undone"
    assert kept(fleet.lab)["holder"] is None
