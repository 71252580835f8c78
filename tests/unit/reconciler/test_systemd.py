"""What systemd is told: READY only with a known and equal state, the watchdog only while alive."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mt5crs.local_fleet.rehearsal import Fleet


class Systemd:
    """A notification socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(0.05)
        self.heard: list[str] = []

    def listen(self) -> str:
        """Everything heard so far, one text."""
        try:
            while True:
                self.heard.append(self._socket.recv(4096).decode())
        except TimeoutError:
            return "\n".join(self.heard)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(fleet: Fleet, tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    for service in ("reconciler", "strategy"):
        fleet.settings[service]["NOTIFY_SOCKET"] = made.path
    yield made
    made.close()


def test_a_failed_start_never_says_ready(fleet: Fleet, systemd: Systemd) -> None:
    fleet.start("reconciler")
    assert fleet.wait_exit("reconciler") == 1
    assert "READY=1" not in systemd.listen()
    assert "STOPPING=1" in systemd.listen()


def test_ready_comes_after_the_sync_and_the_watchdog_is_fed(fleet: Fleet, systemd: Systemd) -> None:
    fleet.settings["reconciler"]["WATCHDOG_USEC"] = 400_000
    fleet.start_ready("gateway")
    fleet.start("reconciler")
    fleet.wait(lambda: "READY=1" in systemd.listen(), "READY")
    assert fleet.state().synced_at > 0
    fleet.wait(lambda: systemd.listen().count("WATCHDOG=1") >= 3, "the watchdog being fed")


def test_the_strategy_feeds_its_watchdog_from_its_main_loop(fleet: Fleet, systemd: Systemd) -> None:
    fleet.settings["strategy"]["WATCHDOG_USEC"] = 400_000
    fleet.start("strategy")
    fleet.wait(lambda: systemd.listen().count("WATCHDOG=1") >= 3, "the watchdog being fed")
