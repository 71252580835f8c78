"""Runs on Python for Windows: drives `service.py` by Windows' own service manager.

Standard output: one JSON object, what each step found.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAME = "contract"
PROGRAM = r"Z:\opt\kit\tests\windows_contract\service.py"
PATIENCE_S = 20.0


def sc(*arguments: str) -> str:
    """What `sc` says."""
    done = subprocess.run(["sc.exe", *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stdout


def state() -> str:
    """STOPPED, RUNNING and the like; empty for a service that is not there."""
    found = re.search(r"STATE\s*:\s*\d+\s+(\w+)", sc("query", NAME))
    return found[1] if found else ""


def exit_code() -> int:
    """What the service said when it ended by itself."""
    found = re.search(r"SERVICE_EXIT_CODE\s*:\s*(\d+)", sc("query", NAME))
    return int(found[1]) if found else -1


def until(wanted: str) -> str:
    """The state, as soon as it is the wanted one, or after a while whatever it is then."""
    end = time.monotonic() + PATIENCE_S
    while (found := state()) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    return found


def main() -> None:
    """Create, start, stop, stop slowly, end by itself, start again, delete."""
    directory = Path(sys.argv[1])
    directory.mkdir()
    found: dict[str, Any] = {}
    sc("create", NAME, "binPath=", f"{sys.executable} {PROGRAM} {directory}")
    found["created"] = state()
    sc("start", NAME)
    found["started"] = until("RUNNING")
    sc("stop", NAME)
    found["stopped"] = until("STOPPED")
    found["ended in order"] = (directory / "ended").exists()
    (directory / "slow").write_text("3")
    sc("start", NAME)
    until("RUNNING")
    sc("stop", NAME)
    found["while it stops"] = state()
    found["stopped slowly"] = until("STOPPED")
    (directory / "end").touch()
    sc("start", NAME)
    found["ended by itself"] = until("STOPPED")
    found["its status"] = exit_code()
    (directory / "end").unlink()
    sc("start", NAME)
    found["started again"] = until("RUNNING")
    sc("stop", NAME)
    until("STOPPED")
    sc("delete", NAME)
    found["deleted"] = state()
    by_hand = subprocess.run([sys.executable, PROGRAM, str(directory)], timeout=PATIENCE_S, check=False)
    found["by hand"] = (by_hand.returncode, (directory / "refused").read_text())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
