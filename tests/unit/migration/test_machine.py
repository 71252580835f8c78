"""What moves is a machine, with every Inf on it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from deploy.commands.migrate import migrate
from deploy.commands.migration_evidence import links_of
from deploy.fleet.inventory import resolve
from mt5crs.operate.chosen import Chosen
from tests.unit.fleets import EXTRA, TREND, add_beside, make_inventory


def test_a_further_inf_goes_along_and_not_alone(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    add_beside(inventory)
    before = inventory.read_bytes()
    asked = CliRunner().invoke(migrate, [TREND, "10.9.9.99", "--dry"], obj=Chosen(inventory))
    assert asked.exit_code == 1
    assert f"{TREND} runs on inf-01; migrate inf-01, it goes along" in asked.output
    assert inventory.read_bytes() == before
    fleet = resolve(inventory, EXTRA)
    assert links_of(fleet, "inf-01") == ["inf-01", TREND]
    assert links_of(fleet, "inf-02") == ["inf-02"]
    assert links_of(fleet, "gtw-01") == ["inf-01", "inf-02", TREND]
