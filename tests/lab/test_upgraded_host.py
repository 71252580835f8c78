"""The next Debian replaces that of a host, and its Python with it: told, and put right by a deployment."""

from __future__ import annotations

import json
import signal

import pytest

from lab.handle import wait_until
from tests.lab.engines import Fleet

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(1500),
    pytest.mark.slow(reason="downloads another Debian; what is seen of it is tried in tests/unit/release"),
]

HOST, OLD, NEW = "inf-01", "bookworm", "trixie"
UPGRADE = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive
sed -i 's/{OLD}/{NEW}/g' /etc/apt/sources.list
apt-get -q update
apt-get -y -q -o Dpkg::Options::=--force-confold full-upgrade
apt-get -y -q autoremove
"""


def problems(fleet: Fleet, service: str) -> list[str]:
    told = json.loads(fleet.lab.exec(HOST, ["mt5crs-release", "status", "--json"]).stdout)
    found: list[str] = told["services"][service]["problems"]
    return found


def test_a_host_with_another_debian_trades_on_until_it_restarts_and_again_once_it_is_deployed(
    fleet: Fleet,
) -> None:
    if fleet.lab.plan.host(HOST).debian != "12":
        pytest.skip("there is no next Debian for 13: boot the lab with `up --debian 12`")
    before = fleet.lab.exec(HOST, ["systemctl", "show", "-P", "MainPID", "mt5crs-strategy.service"]).stdout
    fleet.lab.exec(HOST, ["sh", "-c", UPGRADE], timeout_s=1200)
    after = fleet.lab.exec(HOST, ["systemctl", "show", "-P", "MainPID", "mt5crs-strategy.service"]).stdout
    assert after == before, "the upgrade itself restarts nothing of ours"

    for service in ("reconciler", "strategy"):
        (gone,) = problems(fleet, service)
        assert "is not on this host any more" in gone
    looked = fleet.lab.exec(HOST, ["mt5crs-release", "intact"], check=False)
    assert looked.returncode != 0
    assert "deploy this host before anything on it restarts" in looked.stderr
    fleet.lab.exec(
        HOST, ["systemctl", "kill", f"--signal={signal.SIGKILL.name}", "mt5crs-reconciler.service"]
    )
    dry = fleet.pyinfra("--dry")
    assert dry.output.count("would change") == 2, dry.output[-4000:]

    fleet.override(fleet_alerts_firing="report")  # what is down has made alerts fire, and more are pending
    ran = fleet.pyinfra()
    fleet.override()
    assert ran.status == 0, ran.output[-4000:]
    assert [problems(fleet, service) for service in ("reconciler", "strategy")] == [[], []]
    wait_until(fleet.running, 60, "everything runs again")
    back = fleet.lab.exec(HOST, ["mt5crs-release", "rollback", "reconciler"], check=False)
    assert back.returncode != 0
    assert "is not on this host any more" in back.stderr
    fleet.lab.exec(HOST, ["mt5crs-release", "intact"])
