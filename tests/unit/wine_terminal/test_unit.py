"""The unit of a terminal is part of the gateway's generation, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import resolve
from deploy.fleet.rendering import render
from tests.unit.fleets import EXTRA, make_inventory

UNIT = "mt5crs-terminal.service"
WANTED: dict[str, Any] = {
    "gateway_platform": "wine",
    "gateway_wine_display": ":1",
    "gateway_mt5_path": "C:\\Program Files\\Broker\\terminal64.exe",
}


def gateway(directory: Path, **settings: Any) -> dict[str, Any]:
    """The specification of the gateway's generation."""
    host = resolve(make_inventory(directory), {**EXTRA, **settings}).hosts["gtw-01"]
    made: dict[str, Any] = json.loads(render("release/gateway.json.j2", host))
    return made


def test_only_a_gateway_under_wine_with_a_display_has_it(tmp_path: Path) -> None:
    wanted = gateway(tmp_path / "with", **WANTED)
    assert set(wanted["units"]) == {"mt5crs-gateway.service", UNIT}
    assert wanted["start"] == ["mt5crs-gateway.service"], "a release would restart the terminal"
    assert f"Wants={UNIT}" in wanted["units"]["mt5crs-gateway.service"]
    for number, without in enumerate(({"gateway_wine_display": ""}, {"gateway_platform": "native"})):
        made = gateway(tmp_path / str(number), **{**WANTED, **without})
        assert list(made["units"]) == ["mt5crs-gateway.service"]
        assert UNIT not in made["units"]["mt5crs-gateway.service"]


def test_it_reaches_any_trade_server_or_those_that_are_named(tmp_path: Path) -> None:
    assert "IPAddressDeny" not in gateway(tmp_path / "any", **WANTED)["units"][UNIT]
    named = gateway(tmp_path / "named", **WANTED, gateway_wine_networks=["203.0.113.0/24"])["units"][UNIT]
    assert "IPAddressDeny=any" in named
    assert named.split("IPAddressAllow=")[1].splitlines()[0].endswith(" 203.0.113.0/24")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd reads units; it is not here")
def test_systemd_reads_what_is_meant(tmp_path: Path) -> None:
    text = gateway(tmp_path / "fleet", **WANTED)["units"][UNIT]
    assert "--path 'C:/Program Files/Broker/terminal64.exe' --portable" in text
    here = text.replace("/opt/mt5crs/gateway/current/venv/bin/python", "/usr/bin/env").replace(
        "User=mt5crs", "User=root"
    )
    (tmp_path / UNIT).write_text(here.replace("Group=mt5crs", "Group=root"))
    read = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    # Hosts with Wine have Debian 13, whose systemd knows it.
    newer = "Unknown key 'RestartMode'"
    complaints = [line for line in read.stderr.splitlines() if UNIT in line and newer not in line]
    assert complaints == []
