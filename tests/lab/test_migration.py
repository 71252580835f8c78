"""Hosts move to another address while strategies trade, and the controller is killed half-way."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.fleet.inventory import resolve
from deploy.migration import journal
from lab.handle import wait_until
from tests.lab.engines import Fleet

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.slow(reason="moves are deployments, which the lifecycle matrix and test_parity try"),
]

CUT = """
nft add table ip cut
nft add chain ip cut in '{ type filter hook input priority -300; }'
nft add rule ip cut in ip saddr "$1" drop
"""


def command(fleet: Fleet, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("mt5crs")), "--inventory", str(fleet.inventory), *words]


def migrate(fleet: Fleet, host: str, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    asked = command(fleet, "migrate", host, address, "--yes", *words)
    return subprocess.run(
        asked, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
    )


@contextmanager
def beside(fleet: Fleet, host: str) -> Iterator[tuple[str, str]]:
    """The host has a second address; its own and that one. It is at its own again afterwards."""
    own = str(resolve(fleet.inventory).hosts[host]["fleet_address"])
    other = str(ipaddress.ip_address(own) + 60)
    text, keys = fleet.inventory.read_bytes(), fleet.lab.directory.known_hosts.read_bytes()
    fleet.lab.exec(host, ["ip", "address", "add", f"{other}/24", "dev", "eth0"])
    try:
        yield own, other
    finally:
        open_ = journal.found(fleet.inventory)
        back = migrate(fleet, host, other, "--undo") if open_ else migrate(fleet, host, own)  # 2: it is there
        fleet.lab.exec(host, ["ip", "address", "del", f"{other}/24", "dev", "eth0"])
        fleet.lab.directory.known_hosts.write_bytes(keys)
        assert fleet.inventory.read_bytes() == text, back.stdout + back.stderr


def deals(fleet: Fleet) -> int:
    told = subprocess.run(
        command(fleet, "positions", "--all", "--json"), capture_output=True, text=True, timeout=60, check=True
    )
    return max((int(one["identifier"]) for one in json.loads(told.stdout)["gtw-01"]["positions"]), default=0)


@pytest.mark.parametrize("host", ["inf-02", "gtw-01", "hub-01"])
def test_a_host_moves_though_the_controller_is_killed(fleet: Fleet, host: str) -> None:
    with beside(fleet, host) as (own, other):
        asked = command(fleet, "migrate", host, other, "--yes")
        with subprocess.Popen(
            asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as first:
            assert first.stdout is not None
            for line in first.stdout:
                if line.startswith("Activate 1/"):
                    os.killpg(first.pid, signal.SIGKILL)
        open_ = journal.found(fleet.inventory)
        assert open_ is not None
        assert open_.phase == "described"
        done = migrate(fleet, host, other, "--json")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        report = json.loads(done.stdout)
        assert (report["from"], report["to"], report["outcome"]) == (own, other, "moved")
        assert {layer["verdict"] for of in report["links"].values() for layer in of} <= {"PASS", "WARN"}
        assert journal.found(fleet.inventory) is None
        assert fleet.running()
        newest = deals(fleet)
        wait_until(lambda: deals(fleet) > newest, 60, "a new position")


def test_a_move_whose_links_do_not_work_is_taken_back(fleet: Fleet) -> None:
    with beside(fleet, "inf-02") as (own, other):
        fleet.lab.exec("gtw-01", ["sh", "-c", CUT, "cut", other])
        try:
            done = migrate(fleet, "inf-02", other)
        finally:
            fleet.lab.exec("gtw-01", ["nft", "delete", "table", "ip", "cut"])
        assert done.returncode == 1, done.stdout
        assert f"inf-02 of lab stays at {own}" in done.stdout
        assert fleet.running()
        # Where it is already, there is nothing to go back to.
        again = migrate(fleet, "inf-02", own)
        assert (again.returncode, "has" in again.stderr) == (2, True)
