from pathlib import Path

import pytest

from lab.errors import LabError
from lab.plan import make_plan
from lab.state import LabDirectory, open_lab


def test_plan_is_recorded_privately_and_found_again(tmp_path: Path) -> None:
    directory = LabDirectory("x", tmp_path)
    plan = make_plan("x", "10.203.7.0/24")
    assert directory.load() is None

    directory.save(plan)

    assert directory.load() == directory.require() == plan
    assert directory.root.stat().st_mode & 0o077 == 0
    directory.remove()
    assert directory.load() is None
    assert not directory.root.exists()


def test_missing_lab_is_answered_with_how_to_boot_it(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="lab up --name x"):
        LabDirectory("x", tmp_path).require()


def test_only_one_command_works_on_a_lab_at_a_time(tmp_path: Path) -> None:
    directory = LabDirectory("x", tmp_path)

    with directory.lock(), pytest.raises(LabError, match="at work on lab x"), directory.lock():
        pass
    with directory.lock(), LabDirectory("y", tmp_path).lock():
        pass


def test_inventory_is_the_committed_one_for_the_default_lab_only() -> None:
    assert open_lab("default").inventory.parts[-2:] == ("inventory", "lab.yml")
    assert open_lab("x").inventory.parts[-3:] == (".lab", "x", "inventory.yml")
