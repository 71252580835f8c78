"""The terminal of a gateway under Wine has a unit of its own: neither ends with the other.

A program of Wine stands in for the terminal, which nobody may ship; the rest is what it is on hosts.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.handle import wait_until
from tests.lab.engines import Fleet
from tests.lab.test_blue_green import HOST, Node

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.slow(reason="it needs a lab with Wine (lab up --gateway wine); tests/unit/wine_terminal"),
]

GATEWAY = "gtw-01"
UNIT = "mt5crs-terminal.service"
PREFIX = "/var/lib/mt5crs/gateway/wine"
PATH = "C:/Program Files/Broker/terminal64.exe"
STAND_IN = f"""
set -e
place="{PREFIX}/drive_c/Program Files/Broker"
mkdir -p "$place"
cp /usr/lib/x86_64-linux-gnu/wine/x86_64-windows/notepad.exe "$place/terminal64.exe"
chown -R mt5crs: "$place"
"""
SETTINGS: dict[str, Any] = {"gateway_wine_display": ":1", "gateway_mt5_path": PATH}


def on_gateway(fleet: Fleet, script: str, *, check: bool = True) -> str:
    return fleet.lab.exec(GATEWAY, ["sh", "-c", script], check=check, timeout_s=120).stdout.strip()


def terminals(fleet: Fleet) -> dict[str, str]:
    """The unit of each terminal, by its process number."""
    unit = "grep -o 'mt5crs-[a-z]*.service' /proc/$p/cgroup | sort -u"
    script = f"for p in $(pgrep -f '^C:.*terminal64.exe'); do echo $p $({unit}); done"
    return dict(line.split() for line in on_gateway(fleet, script, check=False).splitlines())


def health(fleet: Fleet) -> dict[str, Any]:
    """What the gateway's /health says."""
    address = next(host.address for host in fleet.lab.plan.hosts if host.name == GATEWAY)
    asked = f"import urllib.request as u; print(u.urlopen('http://{address}:9101/health').read().decode())"
    told: dict[str, Any] = json.loads(on_gateway(fleet, f'python3 -c "{asked}"', check=False) or "{}")
    return told


def state(fleet: Fleet) -> str:
    """The terminal's state, as the gateway tells it."""
    return str(health(fleet).get("terminal", ""))


def the_terminal(fleet: Fleet) -> str:
    """The process number of the one terminal, which is in its own unit."""
    wait_until(lambda: len(terminals(fleet)) == 1, 60, "one terminal", seen=lambda: terminals(fleet))
    ((process, unit),) = terminals(fleet).items()
    assert unit == UNIT
    return process


@pytest.fixture
def under_wine(fleet: Fleet) -> Fleet:
    if not any(host.wine for host in fleet.lab.plan.hosts):
        pytest.skip("this lab has no Wine: `python -m lab up --gateway wine`")
    wait_until(lambda: on_gateway(fleet, f"ls {PREFIX}/system.reg", check=False) != "", 120, "a prefix")
    on_gateway(fleet, STAND_IN)
    return fleet


def test_gateway_and_terminal_restart_without_each_other(under_wine: Fleet) -> None:
    fleet = under_wine
    before = fleet.generations()
    fleet.override(**SETTINGS)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    known = [the_terminal(fleet)]
    node = Node(fleet)
    node.wait_for_trades(1)

    def another(what: str) -> None:
        wait_until(lambda: terminals(fleet).keys() - set(known) != set(), 120, f"another after {what}")
        known.append(the_terminal(fleet))

    on_gateway(fleet, "systemctl restart mt5crs-gateway")
    node.wait_for_trades(1)
    assert the_terminal(fleet) == known[0], "a restart of the gateway ended the terminal"

    on_gateway(fleet, f"kill -9 {known[0]}")
    another("its death")
    node.wait_for_trades(1)

    on_gateway(fleet, f"systemctl restart {UNIT}")
    another("a restart of its unit")
    node.wait_for_trades(1)
    node.assert_nothing_doubled()

    # An order on its way would rightly wait for a person now.
    fleet.lab.exec(HOST, ["systemctl", "stop", "mt5crs-strategy"])
    gateway = on_gateway(fleet, "systemctl show -P MainPID mt5crs-gateway")
    on_gateway(fleet, f"systemctl kill --signal=KILL {UNIT}")
    another("the death of all in its unit")
    wait_until(lambda: state(fleet) == "connected", 60, "the gateway's connection", seen=lambda: state(fleet))
    assert on_gateway(fleet, "systemctl show -P MainPID mt5crs-gateway") == gateway
    fleet.lab.exec(HOST, ["systemctl", "start", "mt5crs-strategy"])
    node.wait_for_trades(1)
    node.assert_nothing_doubled()

    told = on_gateway(
        fleet,
        "cp /usr/lib/x86_64-linux-gnu/wine/x86_64-windows/cmd.exe /root/setup.exe; "
        "mt5crs terminal --install /root/setup.exe -- /c exit 3; echo status $?",
    )
    assert "it ended with exit status 3" in told
    assert told.endswith("status 1")

    fleet.override()
    ran = fleet.playbook("rollback.yml", "--tags", "gateway")
    assert ran.status == 0, ran.output[-4000:]
    assert fleet.generations() == before
    assert terminals(fleet) == {}
    assert on_gateway(fleet, f"systemctl is-active {UNIT}", check=False) == "inactive"
    node.wait_for_trades(1)
    node.assert_nothing_doubled()
