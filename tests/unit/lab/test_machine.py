import os
from pathlib import Path

import pytest

from deploy.controller import programs
from deploy.controller.programs import DEBIAN_PACKAGES
from lab import machine
from lab.errors import LabError
from lab.image import packages
from lab.machine import PROGRAMS, check, missing_packages, problems
from lab.state import PROJECT


def test_every_program_is_in_the_list_that_setup_installs() -> None:
    listed = set(packages((PROJECT / "lab/requirements.apt").read_text()))

    assert set(DEBIAN_PACKAGES.values()) <= listed


def test_all_problems_are_said_at_once_each_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(machine, "FREE_BYTES_NEEDED", 2**80)

    assert missing_packages() == sorted({DEBIAN_PACKAGES[name] for name in PROGRAMS})
    assert len(problems()) == 3
    with pytest.raises(LabError, match=r"as root; .*lab/setup.* podman .*; .*free some space"):
        check()


def test_inotify_limit_is_only_ever_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "max_user_instances"
    monkeypatch.setattr(machine, "INOTIFY_LIMIT", limit)
    limit.write_text("128\n")

    assert machine.raise_inotify_limit() == "inotify instances raised from 128 to 1024"
    assert limit.read_text() == "1024\n"
    assert machine.raise_inotify_limit() == "unchanged"
    limit.write_text("8192\n")
    assert machine.raise_inotify_limit() == "unchanged"
    assert limit.read_text() == "8192\n"
