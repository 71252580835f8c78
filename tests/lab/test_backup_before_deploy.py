"""A deployment makes its backup first, with either engine, and does not begin where it has to have one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator

import pytest

from lab.handle import wait_until
from tests.lab.engines import Fleet, Ran

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600),
    pytest.mark.slow(reason="three deployments for a line of each; unit tests try what decides"),
]
KEPT = "/var/lib/mt5crs/backups"


@pytest.fixture
def wanting(fleet: Fleet) -> Iterator[Callable[[str], None]]:
    """Something to deploy on one host, which wants a backup first."""
    directory = fleet.inventory.parent / "host_vars"
    directory.mkdir()

    def want(level: str) -> None:
        values = {"fleet_backup_before_deploy": "stop", "strategy_log_level": level}
        (directory / "inf-02.yml").write_text(json.dumps(values))

    yield want
    shutil.rmtree(directory)


def made(ran: Ran) -> str:
    found = re.findall(r"backup (\S+): 4 hosts, [0-9.]+ MB, [0-9.]+ s", ran.output)
    assert len(found) == 1, ran.output[-4000:]
    return str(found[0])


def test_both_engines_back_up_first_and_a_hub_that_cannot_keep_it_stops_them(
    fleet: Fleet, wanting: Callable[[str], None]
) -> None:
    wanting("DEBUG")
    ran = fleet.pyinfra("--limit", "inf-02")
    assert ran.status == 0, ran.output[-4000:]
    first = made(ran)
    assert (
        fleet.lab.exec("hub-01", ["test", "-f", f"{KEPT}/{first}/metadata.json"], check=False).returncode == 0
    )
    print(*re.findall(r"backup .*: 4 hosts.*", ran.output))

    wanting("WARNING")
    before = fleet.generations()
    fleet.lab.exec("hub-01", ["mv", KEPT, f"{KEPT}.away"])
    fleet.lab.exec("hub-01", ["touch", KEPT])
    try:
        for ran in (fleet.pyinfra("--limit", "inf-02"), fleet.playbook("site.yml", "--limit", "inf-02")):
            assert ran.status != 0
            assert "no backup was made" in ran.output
            assert "Nothing was changed" in ran.output
            assert fleet.generations() == before
    finally:
        fleet.lab.exec("hub-01", ["rm", "-f", KEPT])
        fleet.lab.exec("hub-01", ["mv", f"{KEPT}.away", KEPT])

    ran = fleet.playbook("site.yml", "--limit", "inf-02")
    assert ran.status == 0, ran.output[-4000:]
    assert made(ran) != first
    wait_until(lambda: fleet.running(), 60, "everything to run")
