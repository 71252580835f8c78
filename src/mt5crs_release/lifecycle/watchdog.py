"""The timer that looks after a generation nobody has confirmed, whatever happens to its deployer.

While a change is pending, systemd runs ``mt5crs-release recover SERVICE --watch`` every few seconds. It
reverts a generation whose run died, whose deadline passed or whose units failed, and ends the timer
when nothing is pending. A reboot ends the timer too; the boot unit takes its place.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mt5crs_release.storage.paths import Host, default_root
from mt5crs_release.systems import system

EVERY_S = 5.0


def timer_name(service: str) -> str:
    """Return the name of the transient timer unit, without its suffix."""
    return f"mt5crs-release-watch-{service}"


def arm(systemd: system.Services, host: Host, service: str) -> None:
    """Begin to look after ``service``.

    :raises FailedError: systemd refused; then nothing may be activated
    """
    systemd.repeat(timer_name(service), [*own_command(host), "recover", service, "--watch"], EVERY_S)


def disarm(systemd: system.Services, service: str) -> None:
    """Stop looking after ``service``; harmless when nobody did."""
    systemd.end_repeat(timer_name(service))


def own_command(host: Host) -> list[str]:
    """Return the command line that runs this tool again."""
    program = Path(sys.argv[0]).resolve()
    command = system.here().own_program(program)
    if program.suffix == ".py":  # run from sources
        command = [sys.executable, "-m", "mt5crs_release"]
    return command if host.root == default_root() else [*command, "--root", str(host.root)]
