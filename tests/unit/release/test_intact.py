"""What a host is asked once an hour: is every byte of what runs, and of all runtimes, what was built?"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mt5crs_release.bundles import runtime_files
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.generations import generation
from mt5crs_release.lifecycle import intact
from mt5crs_release.lifecycle.host_units import (
    BOOT_UNIT,
    INTACT_TIMER,
    INTACT_UNIT,
    install_units,
    unit_texts,
)
from mt5crs_release.storage.paths import COMPLETE, MANIFEST, Host
from mt5crs_release.systems.linux.systemd import Systemd
from mt5crs_release.systems.unit_sample import UnitSample
from tests.release_host.host import FakeHost, specification

MODULE = "lib/module.py"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host that runs one service, and has a runtime."""
    made = FakeHost.create(tmp_path)
    assert made.run("stage", "gateway", spec=specification())[0] == 0
    assert made.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0
    host = Host(made.root)
    runtime = host.runtimes / "core"
    (runtime / "lib").mkdir(parents=True)
    (runtime / MODULE).write_text("limit = 5\n")
    (runtime / COMPLETE).write_text(json.dumps({"files": runtime_files.record(runtime)}))
    return host


def current(host: Host) -> Path:
    return host.service("gateway").current.resolve()


def found(host: Host) -> dict[str, list[str]]:
    with pytest.raises(FailedError) as failed:
        intact.check(host)
    told: dict[str, list[str]] = failed.value.details["found"]
    return told


def test_nothing_is_found_where_nothing_was_changed(host: Host) -> None:
    answer = intact.check(host)
    assert answer["found"] == {}
    assert answer["looked_at"] == [f"gateway {current(host).name}", "runtime core"]
    assert answer["unknown"] == []


def test_configuration_that_was_changed_is_found(host: Host) -> None:
    file = next(path for path in current(host).iterdir() if path.name == ".env")
    file.write_text("GATEWAY_PORT=1\n")
    assert found(host) == {f"gateway {current(host).name}": [".env was changed"]}


def test_code_is_read_though_no_time_tells_of_a_change(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a write past the file system, or with a clock that was set for it."""
    (host.runtimes / "core" / MODULE).write_text("limit = 9\n")
    facts = json.loads((host.runtimes / "core" / runtime_files.RECORD).read_bytes())[MODULE][1:]
    monkeypatch.setattr(runtime_files, "_facts", lambda _: facts)
    assert runtime_files.problems(host.runtimes / "core") == []
    assert found(host) == {"runtime core": [f"{MODULE} of its runtime was changed"]}


def test_a_python_that_is_gone_is_told_of_what_runs_and_is_nobodys_change(host: Host) -> None:
    """What was built for it and runs no more stays for a while: it is told of by nobody."""
    runtime = host.runtimes / "core-cp311"
    (host.runtimes / "core").rename(runtime)
    (runtime / "bin").mkdir()
    (runtime / "bin/python").symlink_to("/usr/bin/python3.99")
    (runtime / COMPLETE).unlink()
    (runtime / runtime_files.RECORD).unlink()
    (runtime / COMPLETE).write_text(json.dumps({"files": runtime_files.record(runtime)}))
    assert intact.check(host)["looked_at"][-1] == "runtime core-cp311"
    manifest = current(host) / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), "runtime": runtime.name}))
    (current(host) / "venv").symlink_to(runtime)
    with pytest.raises(FailedError) as failed:
        intact.check(host)
    gone = "its Python 3.11 is not on this host any more"
    assert failed.value.details["found"] == {f"gateway {current(host).name}": [gone]}
    assert str(failed.value.remedy).startswith("deploy this host before anything on it restarts")
    (runtime / MODULE).write_text("limit = 9\n")
    with pytest.raises(FailedError) as failed:
        intact.check(host)
    assert str(failed.value.remedy).startswith(f"find out who changed gateway {current(host).name}")


def test_a_runtime_without_a_record_is_called_unknown_not_good(host: Host) -> None:
    (host.runtimes / "core" / COMPLETE).write_text("{}")
    answer = intact.check(host)
    assert (answer["unknown"], "runtime core" in answer["looked_at"]) == (["runtime core"], False)


def test_what_is_pruned_in_between_is_no_change(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look meets a runtime of which a part is gone; at the second it is gone altogether."""
    runtime = host.runtimes / "core"
    (runtime / MODULE).unlink()
    looks = []

    def look(of: Host) -> Any:
        looks.append(really(of))
        (runtime / COMPLETE).unlink(missing_ok=True)
        return looks[-1]

    really = intact._look
    monkeypatch.setattr(intact, "_look", look)
    assert intact.check(host)["found"] == {}
    assert list(looks[0][0]) == ["runtime core"]


def test_what_may_not_be_read_is_not_known(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied", "/opt/x")

    monkeypatch.setattr(generation, "problems", refused)
    with pytest.raises(RefusedError, match=r"/opt/x may not be read, so whether it was changed is not known"):
        intact.check(host)


class Kept(Systemd):
    """systemd, as far as the tool's own units need it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.enabled: set[str] = set()
        self.timer = "inactive"

    def reload(self) -> None:
        self.calls.append("reload")

    def not_enabled(self, units: Any) -> list[str]:
        return [unit for unit in units if unit not in self.enabled]

    def enable(self, units: Any) -> None:
        self.enabled |= set(units)

    def restart(self, unit: str, timeout_s: float) -> str | None:
        assert timeout_s > 0
        self.calls.append(f"restart {unit}")
        self.timer = "active"
        return None

    def look(self, units: Any) -> dict[str, UnitSample]:
        return {unit: UnitSample(self.timer, "success", 0, 0) for unit in units}


def test_the_tools_own_units_are_brought_once_and_again_when_they_differ(tmp_path: Path) -> None:
    systemd, host = Kept(), Host(tmp_path)
    install = functools.partial(install_units, host, systemd)
    everything = {"changed": True, "units": sorted([BOOT_UNIT, INTACT_TIMER, INTACT_UNIT])}
    assert install(dry_run=True) == everything
    assert (systemd.calls, host.units.exists()) == ([], False)
    assert install() == everything
    assert systemd.calls == ["reload", f"restart {INTACT_TIMER}"]
    assert systemd.enabled == {BOOT_UNIT, INTACT_TIMER}
    assert install() == {"changed": False, "units": []}
    (host.units / INTACT_UNIT).write_text("another\n")
    assert install()["units"] == [INTACT_UNIT]
    systemd.timer = "inactive"  # somebody has stopped it
    assert install()["units"] == [INTACT_TIMER]
    assert install()["changed"] is False


def test_the_check_may_read_everything_and_change_nothing() -> None:
    unit = unit_texts(["mt5crs-release"])[INTACT_UNIT].splitlines()
    assert "ExecStart=mt5crs-release intact" in unit
    assert {"ProtectSystem=strict", "CapabilityBoundingSet=CAP_DAC_READ_SEARCH", "LimitCORE=0"} <= set(unit)


def test_a_file_larger_than_what_is_read_at_once_has_the_digest_of_its_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data of a strategy may be larger than the memory that the check may use."""
    monkeypatch.setattr(runtime_files, "_CHUNK", 4)
    file = tmp_path / "model.bin"
    file.write_bytes(b"0123456789")
    assert runtime_files._content(str(file)) == hashlib.sha256(b"0123456789").hexdigest()
