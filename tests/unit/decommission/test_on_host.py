"""Whatever a deployment brings to an Inf host leaves with it: a service that is added has to leave, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.decommission import on_host
from deploy.fleet.inventory import resolve
from deploy.fleet.rendering import render
from deploy.fleet.services import SERVICES
from tests.unit.fleets import EXTRA, make_inventory

BROUGHT = [
    service.name for service in SERVICES if service.group in ("inf", "all") and service.name != "baseline"
]


def test_what_trades_stops_from_the_top() -> None:
    assert [service.name for service in reversed(SERVICES) if service.group == "inf"] == [*on_host.TRADING]
    assert sorted(on_host.SERVICES) == sorted(BROUGHT)


@pytest.mark.parametrize("service", BROUGHT)
def test_every_unit_that_is_brought_stops_and_leaves(service: str, tmp_path: Path) -> None:
    fleet = resolve(make_inventory(tmp_path), EXTRA)
    settings = dict(fleet.hosts["inf-01"])
    watchers = {"inf-01": settings["fleet_address"]}
    settings |= {"monitoring_hub_watchers": watchers, "monitoring_hub_watch_url": "https://x.example/hook"}
    wanted = json.loads(render(f"release/{service}.json.j2", settings))
    script = on_host._REMOVE.replace("$service", service)
    for unit in wanted["units"]:
        assert unit in script or f"{unit.partition('.')[0]}.service.*" in script, unit
    for unit in wanted["start"]:
        assert unit in script.partition("done")[0], unit  # none goes on once its settings are gone
