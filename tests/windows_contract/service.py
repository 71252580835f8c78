"""Runs on Python for Windows as a service, in a directory that is its argument: what `manage.py` drives."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(r"Z:\opt\kit\src")  # a service has the environment of the service manager

from mt5crs_release.systems.windows import service as windows_service

NAME = "contract"
ENDS_WITH = 7


def body(directory: Path, stopping: Callable[[], bool]) -> int:
    """Run until it is stopped, after the time that `slow` says, or told to end by itself."""
    (directory / "running").touch()
    while not stopping():
        if (directory / "end").exists():
            return ENDS_WITH
        time.sleep(0.02)
    slow = directory / "slow"
    time.sleep(float(slow.read_text()) if slow.exists() else 0)
    (directory / "ended").touch()
    return 0


if __name__ == "__main__":
    there = Path(sys.argv[1])
    try:
        windows_service.dispatch(NAME, lambda stopping: body(there, stopping))
    except OSError as error:
        (there / "refused").write_text(str(error))
