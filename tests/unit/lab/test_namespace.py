import json
import os
import subprocess
from pathlib import Path

import pytest

from lab import namespace
from lab.namespace import has_pure_cgroup2, start_time

PURE = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
HYBRID = (
    "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def test_pure_cgroup2_needs_no_namespace() -> None:
    assert has_pure_cgroup2(PURE)


@pytest.mark.parametrize("mountinfo", [HYBRID, "", "22 1 0:5 / / rw - ext4 /dev/vda rw\n", PURE + HYBRID])
def test_hybrid_legacy_missing_and_overmounted_trees_need_one(mountinfo: str) -> None:
    assert not has_pure_cgroup2(mountinfo)


def test_cgroup2_mounted_over_a_hybrid_tree_is_what_counts() -> None:
    assert has_pure_cgroup2(HYBRID + PURE)


def test_start_time_tells_processes_apart_and_sees_the_dead() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        begun = start_time(child.pid)
        assert begun is not None
        assert begun >= (start_time(os.getpid()) or 0)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
        assert start_time(child.pid) is None
    finally:
        child.kill()
        child.wait()
    assert start_time(child.pid) is None


def test_recycled_process_id_is_not_taken_for_the_keeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "keeper.json"
    monkeypatch.setattr(namespace, "KEEPER_FILE", record)
    own = start_time(os.getpid())
    assert own is not None

    assert namespace.running_keeper() is None
    record.write_text(json.dumps({"pid": os.getpid(), "start_time": own}))
    assert namespace.running_keeper() == os.getpid()
    record.write_text(json.dumps({"pid": os.getpid(), "start_time": own - 1}))
    assert namespace.running_keeper() is None
    record.write_text("not JSON")
    assert namespace.running_keeper() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a mount namespace, which needs root")
def test_checkout_that_was_mounted_after_the_namespace_was_made_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, late = tmp_path / "early", tmp_path / "late with ü"
    early.mkdir()
    late.mkdir()
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n"
        record = tmp_path / "keeper.json"
        record.write_text(json.dumps({"pid": keeper.pid, "start_time": start_time(keeper.pid)}))
        monkeypatch.setattr(namespace, "KEEPER_FILE", record)
        monkeypatch.setattr(namespace, "needs_keeper", lambda: True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(late)], check=True, timeout=30)
        try:
            (late / "checkout").mkdir()
            assert namespace.sees(early)
            assert not namespace.sees(late)
            assert not namespace.sees(late / "checkout")
        finally:
            subprocess.run(["umount", str(late)], check=True, timeout=30)
    finally:
        keeper.kill()
        keeper.communicate()
