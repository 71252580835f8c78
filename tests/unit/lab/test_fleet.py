from collections.abc import Iterator
from contextlib import contextmanager
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
    monkeypatch.setattr(fleet, "networks_in_use", lambda _others: [])
    directory = LabDirectory("default", tmp_path)
    vault = directory.inventory.parent / "group_vars" / "lab" / "vault.yml"
    vault.parent.mkdir(parents=True)
    vault.write_text("of a lab that is gone")

    fleet._prepare(directory, cast(Podman, NothingThere()), 3, "13")
    assert not vault.exists()

    vault.write_text("of the lab that is there")
    fleet._prepare(directory, cast(Podman, NothingThere()), 3, "13")
    assert vault.exists()


def test_down_of_no_lab_asks_podman_only_while_nobody_can_end_its_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two side by side once ended with `nsenter: cannot open /proc/…/ns/mnt`."""
    held = False

    @contextmanager
    def machine_lock() -> Iterator[None]:
        nonlocal held
        held = True
        yield
        held = False

    class Watched(NothingThere):
        def networks(self) -> list[dict[str, object]]:
            assert held
            return []

        def containers(self, _lab: str) -> dict[str, object]:
            assert held
            return {}

    monkeypatch.setattr(fleet.machine, "check", lambda: None)
    monkeypatch.setattr(fleet.namespace, "machine_lock", machine_lock)
    monkeypatch.setattr(fleet.namespace, "stop_keeper", lambda: None)
    monkeypatch.setattr(fleet, "open_lab", lambda name: LabDirectory(name, tmp_path))
    monkeypatch.setattr(fleet.Podman, "connect", lambda **_options: Watched())

    assert fleet.down("nowhere", lambda _phase: None) is False
