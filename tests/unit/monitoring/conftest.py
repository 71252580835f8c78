import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.rendering import render

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """The default lab as the inventory has it (nothing is booted)."""
    return resolve(PROJECT / "inventory" / "lab.yml")


def specification(settings: Mapping[str, Any], **other: object) -> dict[str, Any]:
    """The desired generation of monitoring for a host with these variables.

    Whether the lab has been booted, so that there is a key to halt with, changes nothing.
    """
    known = {**settings, "hub_alerts_token": "", "hub_webhook_url": "", **other}
    return dict(json.loads(render("release/monitoring.json.j2", known)))


@pytest.fixture(scope="session")
def hub(fleet: Fleet) -> dict[str, Any]:
    return specification(fleet.hosts["hub-01"], monitoring_steered_clocks=["hub-01", "inf-01"])


@pytest.fixture
def configuration(hub: dict[str, Any], tmp_path: Path) -> Path:
    """A directory with the Hub's configuration files, as the generation lays them out."""
    for name, file in hub["files"].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(file["content"])
    return tmp_path
