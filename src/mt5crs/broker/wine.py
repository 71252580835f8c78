"""The terminal process on Python for Windows under Wine, beside a gateway that is an ordinary Linux program.

Wine gives a Windows program the paths of Linux below `Z:`. What is run is this release's own code: the
Windows Python brings only what the package and the pipe need (MetaTrader5, numpy, msgspec).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

import mt5crs

if TYPE_CHECKING:
    from mt5crs.settings.gateway import GatewaySettings

OLDEST, TOO_NEW = 10, 11
"""Majors of Wine: terminals refuse older ones, and have been seen to take 11 for a debugger."""
_SAYS_WITHIN_S = 20.0
_KILLED_WITH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "
    "os.getppid() == int(sys.argv[1]) or os._exit(0); os.execv(sys.argv[2], sys.argv[2:])"
)
"""A Windows program cannot ask the kernel to end it with its gateway (`PR_SET_PDEATHSIG`), so it is asked for
before Wine begins. (`setpriv` of util-linux sets capabilities, too, which the unit's sandbox refuses.)
"""
# What the Windows Python has itself comes first: in the path of a release lie libraries for Linux.
_RUN = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)


class Wine(Struct, frozen=True, kw_only=True):
    """Where Wine, the Windows Python and the prefix of this gateway are; paths of Linux.

    display: of the display server that the terminal shows its window on (`:1`); empty: none.
    """

    program: str
    python: str
    prefix: str
    display: str = ""

    def problem(self) -> str:
        """Why no terminal process can be started with it, with the remedy; empty if one can be."""
        if not os.access(self.program, os.X_OK):
            return (
                f"there is no Wine at {self.program}: install the distribution's package wine64 "
                f"(Wine {OLDEST}), or name it in WINE_PROGRAM"
            )
        if not Path(self.python).is_file():
            return (
                f"there is no Python for Windows at {self.python}: unpack it there as docs/windows.md says, "
                "or name it in WINE_PYTHON"
            )
        try:
            done = subprocess.run(
                [self.program, "--version"],
                capture_output=True,
                text=True,
                timeout=_SAYS_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{self.program} does not say its version ({error}): install the package wine64 anew"
        return version_problem(done.stdout or done.stderr)

    def command(self, module: str, parent: int) -> list[str]:
        """What runs a module of this release as a child of the process `parent`."""
        release = windows_path(str(Path(mt5crs.__file__).resolve().parents[1]))
        python = [self.program, self.python, "-X", "utf8", "-c", _RUN.format(module=module)]
        return [sys.executable, "-ISc", _KILLED_WITH, str(parent), *python, release, str(parent)]

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The environment for it: `given`, without what steers a Python of Linux."""
        kept = {name: value for name, value in given.items() if not name.startswith("PYTHON")}
        if self.display:
            kept["DISPLAY"] = self.display
        return {
            **kept,
            "WINEPREFIX": self.prefix,
            "WINEDEBUG": "-all",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def wine_of(settings: GatewaySettings) -> Wine:
    """What the settings describe: a prefix for each gateway, so that none meets another's terminal."""
    return Wine(
        program=settings.wine_program,
        python=settings.wine_python,
        prefix=str(Path(settings.state_dir).absolute() / "wine"),
        display=settings.wine_display,
    )


def version_problem(said: str) -> str:
    """What is wrong with a Wine that says of itself `wine-10.0 (Debian …)`; empty if nothing is."""
    found = re.match(r"wine-(\d+)\.", said.strip())
    if found is None:
        return f"this is no Wine ({said.strip()[:60]!r}): name another program in WINE_PROGRAM"
    major = int(found[1])
    if major < OLDEST:
        reason = "terminals refuse to run on it"
    elif major >= TOO_NEW:
        reason = "terminals have been seen to take it for a debugger and end"
    else:
        return ""
    return f"{said.strip().split()[0]} cannot be used, {reason}: install Wine {OLDEST} (Debian 13's wine64)"


def windows_path(path: str) -> str:
    r"""A path of Linux as a Windows program names it: `/opt/x` is `Z:\opt\x`."""
    return "Z:" + str(Path(path).absolute()).replace("/", "\\")
