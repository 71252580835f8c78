"""`python3 -m images.steps BUNDLE READY`: a stage of the Containerfile makes what images hold, in /made.

/made/root holds Debian's packages, unpacked. BUNDLE is an unpacked bundle, READY the health command of
monitoring.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

from images.steps import debian, monitoring, wheels

MADE = Path("/made")


def main(bundle: str, ready: str) -> None:
    """Make /made/debian, our part in /made/own, and /made/<package> of each package that is run.

    OSError, CalledProcessError; SystemExit when the bundle is for another architecture.
    """
    bundles = json.loads((Path(bundle) / "manifest.json").read_text())["platforms"]
    here = f"linux-{platform.machine()}"
    if here not in bundles:
        raise SystemExit(f"the bundle is for {', '.join(bundles)}, and the image for {here}: name one for it")
    root, added = MADE / "root", MADE / "root/added"
    described = debian.parse_descriptions((root / "packages.control").read_text())
    beside = added.rename(MADE / "added")
    for name in ("packages.control", "packages.list"):
        (root / name).unlink()
    debian.reduce(root)
    names = {path.name for path in beside.iterdir()}
    debian.describe(root, (text for name, text in described.items() if name not in names))
    for package in monitoring.PACKAGES:
        monitoring.lay_out(beside, described, package, MADE / package, Path(ready))
    _run(wheels.compiling(str(root), debian.LIBRARY))
    (pip,) = Path(bundle).glob("wheels/pip-*.whl")
    _run(wheels.installing(bundle, pip.name, str(root)))
    wheels.finish(root)
    _run(wheels.compiling(str(root), wheels.SITE))
    for name in wheels.OWN:
        (MADE / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).rename(MADE / "own" / name)
    root.rename(MADE / "debian")


def _run(command: list[str]) -> None:
    subprocess.run(command, env=wheels.ENVIRONMENT, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
