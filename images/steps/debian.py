"""Debian's part: unpacked packages are reduced to Python, and described for scanners."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from images.services import PYTHON, USER

DEBIAN, CODENAME = "13", "trixie"
PACKAGES = ("python3.13", "libstdc++6")
"""Python, and what the wheels of zmq are linked with; the rest is what these need."""
STATUS = "var/lib/dpkg/status.d"
"""Where scanners look which packages there are."""
LIBRARY = "usr/lib/python3.13"
_REMOVED = (
    "dev", "etc/apt", "etc/debconf.conf", "etc/dpkg", "etc/fstab", "etc/hostname", "etc/resolv.conf",
    "etc/ssl/private", "tmp", "usr/sbin", "usr/share", "var",
    f"{LIBRARY}/test", f"{LIBRARY}/pydoc_data", f"{LIBRARY}/turtle.py", f"{LIBRARY}/_pyrepl",
)  # fmt: skip
"""Package managers' files, documentation, what only a terminal needs. Licences are kept."""
_REMOVED_LIBRARIES = ("gconv",)
"""Beside the libraries: conversions of character sets, which Python has its own of."""
_LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/bin/python3": "python3.13",
    "etc/os-release": "../usr/lib/os-release",
}
_FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\nmt5crs:x:{USER}:{USER}:mt5crs:/:/nonexistent\n",
    "etc/group": f"root:x:0:\nmt5crs:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "usr/lib/os-release": f'ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="{DEBIAN}"\n'
    f'VERSION_CODENAME={CODENAME}\nPRETTY_NAME="Debian GNU/Linux {DEBIAN} ({CODENAME})"\n',
}


def parse_descriptions(text: str) -> dict[str, str]:
    """Return what Debian says of each package, by name, of what `dpkg-deb --field` printed of each."""
    stanzas = (stanza + "\n" for stanza in text.strip().split("\n\n"))
    return {stanza.partition("\n")[0].removeprefix("Package: "): stanza for stanza in stanzas}


def reduce(root: Path) -> None:
    """Remove what an image does not need."""
    licences = {path.parent.name: path.read_bytes() for path in root.glob("usr/share/doc/*/copyright")}
    for name in _REMOVED:
        _remove(root / name)
    for library in root.glob("usr/lib/*-linux-gnu*"):
        for name in _REMOVED_LIBRARIES:
            _remove(library / name)
    for path in (root / "usr/bin").iterdir():
        if path.name != Path(PYTHON).name:
            _remove(path)
    for package, text in sorted(licences.items()):
        directory = root / "usr/share/doc" / package
        directory.mkdir(parents=True)
        (directory / "copyright").write_bytes(text)


def describe(root: Path, described: Iterable[str]) -> None:
    """Write what the scripts of packages would have, and say for scanners which packages there are."""
    for name in ("dev", "proc", "sys", "tmp", "run", STATUS, "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name, target in _LINKS.items():
        if name == "lib64" and not (root / target).is_dir():
            continue  # amd64's alone
        _remove(root / name)
        (root / name).symlink_to(target)
    for name, text in _FILES.items():
        (root / name).write_text(text)
    for stanza in described:
        name = stanza.partition("\n")[0].removeprefix("Package: ")
        (root / STATUS / name).write_text(stanza)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
