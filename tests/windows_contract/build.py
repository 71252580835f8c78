"""Runs on Python for Windows: makes a runtime of the bundle's wheels, with the release tool's own code.

Standard output: one JSON object, from what was tried to how it ended.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from mt5crs_release.bundles import runtime
from mt5crs_release.errors import ReleaseError
from mt5crs_release.systems import system

BASE = Path(sys.base_prefix)
STABLE_ABI = "python3.dll"
WHEELHOUSE = Path("Z:/opt/wheelhouse")


def ended(step: Callable[[], None]) -> str:
    """How a step ended: empty if well, else what an operator would read."""
    try:
        step()
    except ReleaseError as error:
        return f"{error.message} Remedy: {error.remedy}"
    return ""


def made(target: Path, *, without: str = "") -> Path:
    """A virtual environment with copies of the interpreter, which needs no launcher."""
    system.here().make_runtime(target)
    scripts = target / "Scripts"
    for file in BASE.iterdir():
        if file.suffix in (".exe", ".dll") and file.name != without:
            shutil.copy(file, scripts / file.name)
    return target


def main() -> None:
    """Try it all."""
    plain, whole = Path("C:/plain"), Path("C:/whole")
    system.here().make_runtime(plain)
    found = {"launcher": ended(lambda: runtime._check(plain, WHEELHOUSE))}
    found["no stable ABI"] = ended(
        lambda: runtime._check(made(Path("C:/lacking"), without=STABLE_ABI), WHEELHOUSE)
    )
    made(whole)
    found["complete"] = ended(lambda: runtime._check(whole, WHEELHOUSE))
    found["installed"] = ended(lambda: runtime._install(whole, WHEELHOUSE))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
