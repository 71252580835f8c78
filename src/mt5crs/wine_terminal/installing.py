"""Running an installer where the gateway's terminal lives: in its prefix, on its display, as its user."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mt5crs.broker.wine import Wine
from mt5crs.wine_terminal import display

UNIT = "mt5crs-terminal.service"
KEY = display.RUNTIME / display.KEY


class CannotInstallError(Exception):
    """Why it cannot be run, with the remedy."""


def run(file: Path, arguments: Sequence[str], wine: Wine) -> int:
    """Run a Windows program to its end; its exit status. As root, on the gateway's host.

    It is copied into the prefix for that time: the unit sees no home directory and has a /tmp of its own.
    """
    if os.geteuid() != 0:
        raise CannotInstallError("it runs as the gateway's user: start this as root")
    main = _main_process()
    prefix = Path(wine.prefix)
    owner = prefix.stat()
    copied = prefix / "drive_c" / f"install-{file.name}"
    try:
        shutil.copyfile(file, copied)
        os.chown(copied, owner.st_uid, owner.st_gid)
        enter = ["nsenter", f"--target={main}", "--mount", "--ipc"]
        own = [f"--setuid={owner.st_uid}", f"--setgid={owner.st_gid}"]
        command = [*enter, *own, wine.program, rf"C:\{copied.name}", *arguments]
        environ = wine.environment({"PATH": os.environ.get("PATH", os.defpath), "HOME": wine.prefix})
        done = subprocess.run(command, env={**environ, "XAUTHORITY": str(KEY)}, check=False)
    except OSError as error:
        raise CannotInstallError(f"{file} could not be run: {error}") from None
    finally:
        copied.unlink(missing_ok=True)
    return done.returncode


def _main_process() -> str:
    show = ["systemctl", "show", "--property=MainPID", "--value", UNIT]
    found = subprocess.run(show, capture_output=True, text=True, check=False).stdout.strip()
    if not found.isdigit() or found == "0":
        raise CannotInstallError(f"{UNIT} does not run: see `journalctl -u {UNIT}`")
    return found
