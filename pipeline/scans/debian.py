"""Fixes of Debian that the images do not have yet: an upgrade of their packages, simulated by apt.

apt runs on a package database of its own, made of the bill of materials; this machine's is not touched.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from deploy.controller.programs import find
from images.steps.debian import DEBIAN
from lab.plan import RELEASES
from pipeline.scans.model import Found, Scan

NAME: Final = "Debian fixes pending"
MIRROR, SECURITY = "http://deb.debian.org/debian", "http://security.debian.org/debian-security"
_WITHIN_S: Final = 180
_PURL: Final = re.compile(r"pkg:deb/debian/(?P<name>[^@]+)@(?P<version>[^?]+)\?arch=(?P<architecture>\w+)")
_INST: Final = re.compile(
    r"^Inst (?P<name>\S+) \[(?P<old>[^\]]+)\] \((?P<new>\S+) (?P<origin>[^)]*)\)", re.MULTILINE
)


@dataclass(frozen=True)
class Package:
    """A package as a bill of materials names it."""

    name: str
    version: str
    architecture: str


def packages(documents: Iterable[dict[str, Any]]) -> list[Package]:
    """The Debian packages of bills of materials, each once."""
    found = set()
    for document in documents:
        for component in document.get("components", []):
            purl = _PURL.match(str(component.get("purl", "")))
            if purl:
                found.add(Package(*(unquote(purl[part]) for part in ("name", "version", "architecture"))))
    return sorted(found, key=lambda each: (each.architecture, each.name))


def database(installed: Iterable[Package]) -> str:
    """A dpkg database in which they are installed."""
    return "\n".join(
        f"Package: {each.name}\nStatus: install ok installed\nVersion: {each.version}\n"
        f"Architecture: {each.architecture}\nMaintainer: unknown\nDescription: unknown\n"
        for each in installed
    )


def pending(simulated: str) -> list[Found]:
    """What a simulated upgrade would replace. All of it counts: Debian's point releases bring fixes too.

    apt takes a package of the bill for another than Debian's of the same version, since the bill says less.
    """
    return [
        Found(key=f"{each['name']} {each['old']}", detail=f"{each['new']} is there, from {each['origin']}")
        for each in _INST.finditer(simulated)
        if each["old"] != each["new"]
    ]


def scan(documents: Iterable[dict[str, Any]], mirror: str | None = None) -> Scan:
    """Simulate the upgrade of every architecture's packages. Without apt or network: `not checked`."""
    installed = packages(documents)
    if not installed:
        why = "there is no bill of materials of images in dist/; `make images` makes them"
        return Scan(name=NAME, what="packages", not_checked=why)
    apt = find("apt-get")
    if apt is None:
        return Scan(name=NAME, what="packages", not_checked="apt-get is not on this machine")
    found: list[Found] = []
    for architecture in sorted({each.architecture for each in installed} - {"all"}):
        of = [each for each in installed if each.architecture in (architecture, "all")]
        with tempfile.TemporaryDirectory(prefix="mt5crs-apt-") as scratch:
            options = _prepared(Path(scratch), architecture, of, mirror)
            for command in (("update",), ("--simulate", "dist-upgrade")):
                done = subprocess.run(
                    [apt, *options, *command],
                    capture_output=True,
                    text=True,
                    timeout=_WITHIN_S,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
                if done.returncode != 0:
                    return Scan(
                        name=NAME, what="packages", not_checked=f"apt-get {command[-1]}: {_why(done)}"
                    )
            found += pending(done.stdout)
    return Scan(name=NAME, looked_at=len(installed), what="packages", found=found)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return errors[0] if errors else f"it ended with status {done.returncode}"


def _prepared(scratch: Path, architecture: str, installed: list[Package], mirror: str | None) -> list[str]:
    for directory in ("lists/partial", "cache/archives/partial", "dpkg", "parts"):
        (scratch / directory).mkdir(parents=True)
    (scratch / "dpkg/status").write_text(database(installed))
    (scratch / "sources.list").write_text("".join(f"{line}\n" for line in _sources(mirror)))
    state = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",
        "Dir::State": scratch,
        "Dir::State::lists": scratch / "lists",
        "Dir::State::status": scratch / "dpkg/status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": scratch / "parts",
        "Dir::Etc::preferencesparts": scratch / "parts",
    }
    return [word for name, value in state.items() for word in ("-o", f"{name}={value}")]


def _sources(mirror: str | None) -> Iterator[str]:
    suite = RELEASES[DEBIAN]
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    main = mirror or MIRROR
    yield f"deb {signed} {main} {suite} main"
    yield f"deb {signed} {main} {suite}-updates main"
    yield f"deb {signed} {SECURITY} {suite}-security main"
