"""The Debian part of an image: unpacked packages without their scripts, and nothing that could run a command.

No shell, no package manager, no other program than Python: what breaks into a service finds nothing to use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bundle.sbom import DebianPackage
from images import monitoring
from images.errors import ImageError
from images.services import PYTHON, USER
from lab.errors import LabError
from lab.image import root_argv, write_root
from lab.plan import RELEASES

DEBIAN = "13"
PACKAGES = ("python3.13", "libstdc++6")
"""Python, and what the wheels of zmq are linked with; the rest is what these need."""
HOOKS = tuple(Path(__file__).resolve().parent / name for name in ("add-packages", "record-packages"))
_ADDED = "added"
_LISTED, _DESCRIBED = "packages.list", "packages.control"
_LIBRARY = "usr/lib/python3.13"
_REMOVED = (
    "dev", "etc/apt", "etc/debconf.conf", "etc/dpkg", "etc/fstab", "etc/hostname", "etc/resolv.conf",
    "etc/ssl/private", "tmp", "usr/sbin", "usr/share", "var",
    f"{_LIBRARY}/test", f"{_LIBRARY}/pydoc_data", f"{_LIBRARY}/turtle.py", f"{_LIBRARY}/_pyrepl",
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
    f'VERSION_CODENAME={RELEASES[DEBIAN]}\nPRETTY_NAME="Debian GNU/Linux {DEBIAN} ({RELEASES[DEBIAN]})"\n',
}
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Root:
    """A root file system in `directory`, and the packages that it and those beside it are made of.

    added: a directory with what each further package holds. described: what Debian says of each package.
    """

    directory: Path
    packages: tuple[DebianPackage, ...]
    added: Path
    described: Mapping[str, str]


def argv(target: Path, mirror: str | None, architecture: str) -> list[str]:
    """Return mmdebstrap's arguments."""
    add, record = HOOKS
    added = " ".join(package for packages in monitoring.PACKAGES.values() for package in packages)
    hooks = [f'--extract-hook={add} "$1" {added}', f'--extract-hook={record} "$1"']
    made = root_argv(DEBIAN, PACKAGES, (), target, mirror, variant="extract")
    return ["--mode=root", f"--architectures={architecture}", *hooks, *made]


def make(target: Path, mirror: str | None, architecture: str, builder: Path | None = None) -> Root:
    """Make the root in `target`, which must not exist, and `added` beside it.

    builder: a root of this machine's architecture that `target` is in, when it is another one's itself.
    ImageError if the mirror or the disk fails.
    """
    try:
        write_root(argv(target, mirror, architecture))
    except LabError as error:
        raise ImageError(str(error)) from None
    packages = parse_packages((target / _LISTED).read_text())
    described = parse_descriptions((target / _DESCRIBED).read_text())
    (target / _LISTED).unlink()
    (target / _DESCRIBED).unlink()
    added = target.with_name(_ADDED)
    (target / _ADDED).rename(added)
    _reduce(target)
    beside = {path.name for path in added.iterdir()}
    _describe(target, (text for name, text in described.items() if name not in beside))
    compile_code(target, _LIBRARY, builder)
    return Root(target, packages, added, described)


def parse_packages(text: str) -> tuple[DebianPackage, ...]:
    """Return the packages that the hook has listed, sorted by name."""
    rows = [line.split("\t") for line in text.splitlines() if line]
    return tuple(sorted((DebianPackage(*row) for row in rows), key=lambda package: package.name))


def parse_descriptions(text: str) -> dict[str, str]:
    """Return what Debian says of each package that the hook has listed, by name."""
    stanzas = (stanza + "\n" for stanza in text.strip().split("\n\n"))
    return {stanza.partition("\n")[0].removeprefix("Package: "): stanza for stanza in stanzas}


def compile_code(root: Path, library: str, builder: Path | None = None) -> None:
    """Compile the Python code in a directory of `root`; the builder's Python does it as the root's would."""
    below = f"/{root.relative_to(builder)}" if builder else ""
    options = ["-q", "--invalidation-mode", "unchecked-hash", *(("-s", below, "-p", "/") if below else ())]
    in_root(builder or root, [PYTHON, "-m", "compileall", *options, f"{below}/{library}"])


def in_root(root: Path, command: Sequence[str], **further: str) -> str:
    """Run a program of the root in it, as root and with an environment of its own; return what it printed.

    further: of its environment. ImageError if it fails.
    """

    def enter() -> None:
        os.chroot(root)
        os.chdir("/")

    environment = {"PATH": "/usr/bin", "PYTHONHASHSEED": "0", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    environment |= further
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            preexec_fn=enter,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(
            f"{command[0]} of the image cannot be run ({error}): build images as root, on a machine of the "
            "image's architecture"
        ) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ImageError(
            f"`{' '.join(command[:4])} …` failed in the image: {said[-1] if said else 'no reason given'}; "
            "look whether the disk is full, then build again"
        )
    return done.stdout


def _reduce(root: Path) -> None:
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


def _describe(root: Path, described: Iterable[str]) -> None:
    """Write what the scripts of packages would have, and say for scanners which packages there are."""
    for name in ("dev", "proc", "sys", "tmp", "run", monitoring.STATUS, "var/tmp"):
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
        (root / monitoring.STATUS / name).write_text(stanza)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
