"""Every unit that listens is sandboxed; time is kept."""

import json

import pytest
from testinfra.host import Host

from tests.verify.node import Node

EXPOSURE_LIMIT = 1.5


def exposure(node: Node, unit: str) -> float:
    answer = node.run("systemd-analyze", "security", unit, "--no-pager", "--json=short")
    assert answer.returncode == 0, answer.stderr
    rows = json.loads(answer.stdout)
    assert rows, f"systemd does not know {unit}"
    # The overall figure stands only in the text form's last line: "… Overall exposure level for x: 1.0 OK".
    text = node.run("systemd-analyze", "security", unit, "--no-pager").stdout.strip().splitlines()[-1]
    return float(text.split(": ", 1)[1].split()[0])


def test_exposure_of_our_services(node: Node, unit: str) -> None:
    assert exposure(node, f"mt5crs-{node.installed(unit)}.service") <= EXPOSURE_LIMIT


def test_exposure_of_the_node_exporter(node: Node) -> None:
    assert exposure(node, "prometheus-node-exporter.service") <= EXPOSURE_LIMIT


@pytest.mark.parametrize("server", ["prometheus.service", "prometheus-alertmanager.service"])
def test_exposure_of_monitoring(hub: Node, server: str) -> None:
    assert exposure(hub, server) <= EXPOSURE_LIMIT


def test_time_is_synchronised_by_chrony(node: Node, host: Host) -> None:
    chrony = host.service("chrony")
    assert chrony.is_enabled
    assert chrony.is_running
