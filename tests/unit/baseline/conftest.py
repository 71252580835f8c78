from pathlib import Path

import pytest

from deploy.fleet.inventory import Fleet, resolve

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """The default lab as the inventory has it (nothing is booted)."""
    return resolve(PROJECT / "inventory" / "lab.yml")
