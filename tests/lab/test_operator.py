"""The kill switch and its companions, as they are documented: from the controller and on a host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def operate(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`mt5crs --inventory …` as from another directory of the controller, with nothing in its environment."""
    command = [str(Path(sys.executable).with_name("mt5crs")), "--inventory", str(fleet.inventory), *arguments]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_fleet_is_halted_and_resumed_from_the_controller(fleet: Fleet) -> None:
    halted = operate(fleet, "halt", "--reason", "drill")
    try:
        assert halted.returncode == 0, halted.stderr
        assert "only their owners can read the .env files (5)" in halted.stdout
        status = json.loads(operate(fleet, "status", "--json").stdout)
        assert [halt["reason"] for halt in status["gtw-01"]["halts"]] == ["drill"]
    finally:
        assert operate(fleet, "resume", "--reason", "drill").returncode == 0
    assert operate(fleet, "status").stdout.startswith("gtw-01\ngateway ")
    assert operate(fleet, "deployments", "list", "--json").returncode == 0


def test_a_halt_names_every_host_whose_keys_others_can_read(fleet: Fleet) -> None:
    path = "/opt/mt5crs/strategy/current/.env"
    fleet.lab.exec("inf-02", ["chmod", "0640", path])
    try:
        told = operate(fleet, "halt", "--reason", "drill", "--magic", "202402")
    finally:
        fleet.lab.exec("inf-02", ["chmod", "0600", path])
        assert operate(fleet, "resume", "--reason", "drill", "--magic", "202402").returncode == 0
    assert told.returncode == 1
    assert f"the halt is in force, but {path} of inf-02 has mode 0640" in told.stderr


def test_mt5crs_is_on_the_path_of_every_host(fleet: Fleet) -> None:
    assert fleet.lab.ssh("inf-01", "sudo mt5crs status").stdout.startswith("gateway ")
    refused = fleet.lab.ssh("inf-01", "mt5crs status", check=False)
    assert (refused.returncode, "use sudo" in refused.stderr) == (78, True), refused.stderr
    on_the_hub = fleet.lab.ssh("hub-01", "mt5crs status", check=False)
    assert (on_the_hub.returncode, "--inventory" in on_the_hub.stderr) == (1, True), on_the_hub.stderr
