"""The calls into Windows themselves, on a real Windows, as administrator; elsewhere skipped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mt5crs_release.errors import FailedError
from mt5crs_release.systems.windows import rights as windows_rights
from mt5crs_release.systems.windows.kernel import Kernel

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="needs Windows")

# Starts a sleeping child as the launcher does, says its process id, and waits to be killed.
LAUNCHER = """
import sys, time
from pathlib import Path
from mt5crs_release.systems.windows.kernel import Kernel
kernel = Kernel()
program = [sys.executable, "-c", "import time; time.sleep(120)"]
child = kernel.spawn(program, kernel.base_environment(), Path.cwd(), Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(120)
"""
# Ends with 7 when it is asked to end in order.
STOPPABLE = """
import signal, sys, time
signal.signal(signal.SIGBREAK, lambda *_: sys.exit(7))
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def kernel() -> Kernel:
    """The real one."""
    return Kernel()


def account() -> str:
    """An account of this host: the one that runs the tests."""
    return os.environ["USERNAME"]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_a_file_is_replaced_and_a_directory_is_not(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    kernel.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
    assert not (tmp_path / "new").exists()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises((FileExistsError, PermissionError)):
        kernel.rename_directory(tmp_path / "a", tmp_path / "b")
    kernel.rename_directory(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").is_dir()


def test_a_volume_is_flushed(kernel: Kernel, tmp_path: Path) -> None:
    kernel.flush_volume(tmp_path)


def test_a_file_is_created_once(kernel: Kernel, tmp_path: Path) -> None:
    kernel.create_file(tmp_path / "x", b"line\n")
    assert (tmp_path / "x").read_bytes() == b"line\n"
    with pytest.raises(FileExistsError):
        kernel.create_file(tmp_path / "x", b"")


def test_a_junction_shows_its_target(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/file").write_text("x")
    kernel.junction(tmp_path / "link", tmp_path / "target")
    assert (tmp_path / "link/file").read_text() == "x"


def test_a_lock_is_held_by_one_and_goes_with_it(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("who holds it")
    first, second = (os.open(path, os.O_RDWR) for _ in range(2))
    assert kernel.try_lock(first)
    assert not kernel.try_lock(second)
    assert path.read_text() == "who holds it"
    os.close(first)
    assert kernel.try_lock(second)
    os.close(second)


def test_the_boot_is_known_and_the_same(kernel: Kernel) -> None:
    assert kernel.boot_id() == kernel.boot_id()
    first = kernel.boot_clock()
    assert first > 0
    until(lambda: kernel.boot_clock() > first)


def test_accounts_and_processes(kernel: Kernel) -> None:
    assert kernel.is_administrator()
    assert kernel.account_sid(account()).startswith("S-1-5-21-")
    with pytest.raises(FailedError, match="does not exist"):
        kernel.account_sid("nobody-of-this-name")
    assert kernel.is_alive(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(20)
    assert not kernel.is_alive(ended.pid)


def test_rights_are_set_before_content_and_read_back(kernel: Kernel, tmp_path: Path) -> None:
    directory = tmp_path / "generation"
    directory.mkdir()
    windows_rights.protect(kernel, directory, account())
    kernel.create_file(directory / ".env", b"KEY='x'\n")
    windows_rights.check_rights(kernel, directory, account())
    granted = kernel.run(["icacls.exe", str(directory / ".env"), "/grant", "*S-1-1-0:R"])
    assert granted.returncode == 0, granted.stdout
    with pytest.raises(FailedError, match="grants rights to WD"):
        windows_rights.check_rights(kernel, directory, account())


def test_the_program_ends_with_its_launcher(kernel: Kernel, tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[3] / "src"
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert launcher.stdout is not None
    child = int(launcher.stdout.readline())
    assert kernel.is_alive(child)
    launcher.kill()
    launcher.wait(20)
    until(lambda: not kernel.is_alive(child))


def test_a_program_is_asked_to_end(kernel: Kernel, tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = kernel.spawn([sys.executable, "-c", STOPPABLE], kernel.base_environment(), tmp_path, log)
    try:
        until(lambda: "ready" in log.read_text())
        kernel.interrupt(child)
        assert child.wait(20) == 7
    finally:
        child.kill()
