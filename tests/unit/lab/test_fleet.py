from pathlib import Path
from typing import cast

import pytest

from lab import fleet
from lab.podman import Podman
from lab.state import LabDirectory


class NothingThere:
    """Podman of a machine without labs; what it is told to make is taken for made."""

    def networks(self) -> list[dict[str, object]]:
        return []

    def run(self, *_arguments: str) -> str:
        return ""


def test_a_new_default_lab_forgets_the_vault_of_one_whose_password_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_networks_in_use", lambda _others: [])
    directory = LabDirectory("default", tmp_path)
    vault = directory.inventory.parent / "group_vars" / "lab" / "vault.yml"
    vault.parent.mkdir(parents=True)
    vault.write_text("of a lab that is gone")

    fleet._prepare(directory, cast(Podman, NothingThere()), 3, "13")
    assert not vault.exists()

    vault.write_text("of the lab that is there")
    fleet._prepare(directory, cast(Podman, NothingThere()), 3, "13")
    assert vault.exists()
