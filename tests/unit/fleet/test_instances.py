"""A further Inf on a machine: what it may not share is told before anything is touched."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy import keys
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.services import MACHINES
from deploy.fleet.settings import check
from tests.unit.fleets import EXTRA, TREND, add_beside, make_inventory


def fleet_with(directory: Path, others: dict[str, dict[str, Any]] | None = None, **own: Any) -> Fleet:
    """The fleet of the unit tests with one more Inf on the machine of inf-01; `others`: more of a host."""
    inventory = make_inventory(directory)
    add_beside(inventory, **own)
    text = json.loads(inventory.read_text())
    groups = text["lab"]["children"]
    for host, values in (others or {}).items():
        group = next((name for name in groups if host in groups[name]["hosts"]), "inf")
        groups[group]["hosts"].setdefault(host, {}).update(values)
    inventory.write_text(json.dumps(text))
    keys.make(inventory)
    return resolve(inventory, EXTRA)


def test_a_further_inf_is_a_host_whose_machine_is_another(tmp_path: Path) -> None:
    fleet = fleet_with(tmp_path)
    assert check(fleet) == []
    assert TREND in fleet.in_group("inf")
    assert TREND not in fleet.in_group(MACHINES)
    assert fleet.machine_of(TREND) == fleet.machine_of("inf-01") == "inf-01"
    assert fleet.on_machine("inf-01") == ("inf-01", TREND)
    assert (fleet.on_machine("inf-02"), fleet.instances_on(TREND)) == (("inf-02",), ())
    assert fleet.service_on(TREND, "strategy") == "strategy@trend"
    of = fleet.hosts[TREND]
    assert (of["reconciler_metrics_port"], of["strategy_standby_metrics_port"]) == (9202, 9213)
    assert sorted(fleet.hosts["inf-01"]["fleet_scraped_ports"]) == [9102, 9103, 9202, 9203]
    assert sorted(fleet.hosts["inf-02"]["fleet_scraped_ports"]) == [9102, 9103]


@pytest.mark.parametrize(
    ("own", "others", "said"),
    [
        (
            {"fleet_port_offset": 0},
            {},
            r"inf-01-trend: reconciler_metrics_port 9102, .* 9113: inf-01 on that machine has them; .* 100$",
        ),
        ({"strategy_metrics_port": 9102}, {}, r"strategy_metrics_port 9102: inf-01 on that machine has it;"),
        (
            {"strategy_memory_percent": 60},
            {},
            r"inf-01: strategy_memory_percent .* is over 90 \(75 of inf-01, 60 of inf-01-trend\)",
        ),
        (
            {"ansible_host": "10.9.9.99"},
            {},
            r"inf-01-trend: fleet_instance .*is 'trend', so ansible_host must be the address of an Inf host",
        ),
        ({"fleet_instance": "Trend!"}, {}, r"fleet_instance .* is 'Trend!', expected"),
        ({"fleet_magic_number": 202401}, {}, r"202401 is traded by inf-01 already"),
        ({"fleet_instance": ""}, {}, r"inf-01-trend: .*10\.9\.9\.12.*inf-01"),
        (
            {},
            {"gtw-01": {"fleet_instance": "x"}},
            r"gtw-01: fleet_instance .*only hosts of the group inf have instances",
        ),
        (
            {},
            {
                "inf-01-other": {
                    "ansible_host": "10.9.9.12",
                    "fleet_instance": "trend",
                    "fleet_port_offset": 200,
                    "strategy_memory_percent": 5,
                }
            },
            r"inf-01-other: fleet_instance is that of inf-01-trend on the same machine; give each its own",
        ),
    ],
)
def test_what_a_machine_cannot_have_is_refused(
    tmp_path: Path, own: dict[str, Any], others: dict[str, dict[str, Any]], said: str
) -> None:
    found = check(fleet_with(tmp_path, others, **own))
    assert [line for line in found if re.search(said, line)], found
    assert len(found) == 1, "one cause, one sentence"
