"""A host leaves a trading fleet: refused, interrupted, finished; its keys are worth nothing afterwards."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import keys
from deploy.decommission.record import DIRECTORY
from deploy.fleet.inventory import resolve
from lab.handle import wait_until
from tests.lab.engines import Fleet
from tests.lab.test_peers import gets_in

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

HOST, MAGIC = "inf-02", "202402"


def command(fleet: Fleet, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("mt5crs")), "--inventory", str(fleet.inventory), *words]


def leave(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    """`mt5crs --inventory … decommission inf-02 …`, as from anywhere."""
    asked = command(fleet, "decommission", HOST, "--reason", "drill", *words)
    return subprocess.run(
        asked, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )


def open_positions(fleet: Fleet) -> set[int]:
    """What the broker holds of the host's magic number."""
    told = subprocess.run(
        command(fleet, "positions", "--all", "--json"), capture_output=True, text=True, timeout=60, check=True
    )
    books = json.loads(told.stdout)["gtw-01"]["positions"]
    return {position["identifier"] for position in books if position["magic"] == int(MAGIC)}


@pytest.fixture
def inventory(fleet: Fleet) -> Iterator[str]:
    """The inventory with the host, which is there again afterwards, with keys of its own."""
    text = fleet.inventory.read_text()
    known = set(DIRECTORY.glob(f"*-{HOST}-*"))
    yield text
    fleet.inventory.write_text(text)
    keys.make(fleet.inventory)
    for path in set(DIRECTORY.glob(f"*-{HOST}-*")) - known:
        path.unlink()


def test_a_host_leaves_with_its_positions_in_somebodys_hands(fleet: Fleet, inventory: str) -> None:
    wait_until(lambda: bool(open_positions(fleet)), 60, "the strategy holds a position")
    refused = leave(fleet, "--yes")
    assert (refused.returncode, "no other host trades it" in refused.stderr) == (1, True), refused.stderr
    unasked = leave(fleet, "--hand-over", "ann")  # there is no terminal to ask on
    assert unasked.returncode == 1
    assert (fleet.inventory.read_text(), fleet.running()) == (inventory, True)

    secret = resolve(fleet.inventory).hosts[HOST]["strategy_client_secret_key"]
    asked = command(fleet, "decommission", HOST, "--reason", "drill", "--hand-over", "ann", "--yes")
    with subprocess.Popen(
        asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "deploy the rest" in line:  # stopped, fetched, out of the inventory; not revoked yet
                os.killpg(first.pid, signal.SIGKILL)
    held = open_positions(fleet)
    assert HOST not in fleet.inventory.read_text()

    done = leave(fleet)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{HOST} is out of the inventory already (phase out); going on" in done.stdout
    assert "ann looks after what is open" in done.stdout
    assert open_positions(fleet) == held
    left = fleet.lab.exec(HOST, ["sh", "-c", "ls /opt/mt5crs; find / -xdev -name .env -path '*mt5crs*'"])
    assert left.stdout.split() == ["baseline"]
    units = "mt5crs-*.service prometheus-node-exporter.service"
    runs = fleet.lab.exec(HOST, ["sh", "-c", f"systemctl list-units --plain --no-legend {units}"]).stdout
    assert not [line for line in runs.splitlines() if " running " in line], runs
    (data,) = DIRECTORY.glob(f"*-{HOST}-*.tar.gz")
    assert data.stat().st_mode & 0o077 == 0
    with tarfile.open(fileobj=io.BytesIO(data.read_bytes())) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        assert "var/lib/mt5crs/strategy/intents.db" in files
        assert "journal.log" in files
        for name, file in files.items():
            assert file is None or secret.encode() not in file.read(), name
    again = leave(fleet)
    assert (again.returncode, "has no Inf host" in again.stderr) == (2, True)
    assert not gets_in(fleet, secret, f"{HOST}-strategy")

    # It comes back with keys of its own, and trades.
    fleet.inventory.write_text(inventory)
    keys.make(fleet.inventory)
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-4000:]
    assert fleet.running()
    wait_until(lambda: bool(open_positions(fleet) - held), 60, "a position of the host that is back")
