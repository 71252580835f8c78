"""kill -9 of each service on real hosts with open positions: the recovered state equals the broker's."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from lab.ssh import options
from lab.state import PROJECT
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def test_every_service_recovers_what_the_broker_has(fleet: Fleet) -> None:
    addresses = {host.name: host.address for host in fleet.lab.plan.hosts}
    phoenix = subprocess.run(
        [
            sys.executable, "-m", "mt5crs", "phoenix", "--json",
            "--inf", f"ops@{addresses['inf-01']}",
            "--gateway", f"ops@{addresses['gtw-01']}",
            "--ssh", shlex.join(["ssh", *options(fleet.lab.directory)]),
        ],
        cwd=PROJECT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert phoenix.returncode == 0, phoenix.stdout + phoenix.stderr
    findings = {finding["name"].split()[2]: finding for finding in json.loads(phoenix.stdout)["findings"]}
    assert {service: finding["verdict"] for service, finding in findings.items()} == {
        "reconciler": "PASS",
        "strategy": "PASS",
        "gateway": "PASS",
    }
    assert "open positions" in findings["gateway"]["detail"]
