"""Journal, lock, durable files, and the choice of what may be pruned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mt5crs_release.errors import BusyError, FailedError
from mt5crs_release.generations import machine
from mt5crs_release.generations.state import Generation, ServiceState, Transaction, load, save
from mt5crs_release.generations.unit_install import install_directories, link_at_boot
from mt5crs_release.lifecycle.pruning import doomed
from mt5crs_release.storage import store
from mt5crs_release.storage.journal import Journal
from mt5crs_release.storage.lock import Lock


def test_torn_journal_line_costs_only_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("one")
    with journal.path.open("a") as stream:
        stream.write('{"event": "to')
    journal.append("three")
    assert [record["event"] for record in journal.read()] == ["one", "three"]


def test_lock_names_its_holder_and_is_refused(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock", "activate gateway", 0) as lock:
        lock.beat("waiting for health")
        with pytest.raises(BusyError) as caught, Lock(tmp_path / "lock", "confirm gateway", 0):
            pass
    assert f"`activate gateway` (pid {os.getpid()})" in caught.value.message
    assert "waiting for health" in caught.value.message


def test_lock_of_a_killed_holder_is_taken_over_and_says_so(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom mt5crs_release.storage.lock import Lock\n"
    )
    program += "Lock(Path(sys.argv[1]), 'stage x', 0).__enter__()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "lock")], check=False, timeout=30)
    assert done.returncode == -9
    with Lock(tmp_path / "lock", "recover", 0) as lock:
        assert lock.dead_owner is not None
        assert lock.dead_owner["command"] == "stage x"
    with Lock(tmp_path / "lock", "recover", 0) as lock:
        assert lock.dead_owner is None


def test_failed_replacement_leaves_the_old_file_and_no_rubble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    store.replace_file(path, b"old", 0o644)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.replace_file(path, b"new", 0o644)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"state.json": b"old"}


def test_new_file_is_never_open_to_others_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="exists"):
        store.write_new(tmp_path / "link", b"secret", 0o600)
    assert not (tmp_path / "target").exists()


def test_directory_in_place_of_the_pointer_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(FailedError, match="is a directory"):
        store.switch_link(tmp_path / "current", "generations/x")


def test_state_survives_a_round_trip_and_damage_is_named(tmp_path: Path) -> None:
    record = _record()
    save(record, tmp_path / "state.json")
    assert load("gateway", tmp_path / "state.json") == record
    (tmp_path / "state.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(FailedError, match="its format is not 1"):
        load("gateway", tmp_path / "state.json")


def test_pruning_spares_what_is_needed() -> None:
    record = _record()
    assert [entry.name for entry in doomed(record, 0)] == ["0001-a", "0002-b"]
    assert [entry.name for entry in doomed(record, 1)] == ["0001-a"]
    record.transaction = Transaction("0001-a", "0002-b", "now", 60)
    assert doomed(record, 0) == []


def test_generations_sort_by_number() -> None:
    record = ServiceState("gateway")
    for name in ("10000-x", "9999-x"):
        record.generations[name] = _generation(name)
    assert [entry.name for entry in record.in_order()] == ["9999-x", "10000-x"]


def test_install_section_is_read_as_systemd_does(tmp_path: Path) -> None:
    text = "[Unit]\nWantedBy=no.target\n[Install]\nWantedBy=a.target b.target\nRequiredBy = c.target\n"
    assert install_directories(text) == ["a.target.wants", "b.target.wants", "c.target.requires"]
    link_at_boot(tmp_path, "x.service", ["a.target.wants", "b.target.wants"])
    link_at_boot(tmp_path, "x.service", ["b.target.wants"])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*") if path.is_symlink()) == [
        "b.target.wants/x.service"
    ]


def _record() -> ServiceState:
    record = ServiceState(
        "gateway", counter=5, current="0004-d", desired="0005-e", history=["0003-c", "0004-d"]
    )
    for name in ("0001-a", "0002-b", "0003-c", "0004-d", "0005-e"):
        record.generations[name] = _generation(name)
    return record


def _generation(name: str) -> Generation:
    return Generation(name, name, machine.CONFIRMED, None, None, None, 1, "now")
