"""What wheels say of themselves: what they are for, what they need, which strategies they offer."""

from __future__ import annotations

import configparser
import zipfile
from collections.abc import Iterable, Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from deploy.bundle.wheelhouse import Platform, WheelError

GROUP = "mt5crs.strategies"


class Wheel(NamedTuple):
    """Name, version and tags by the file's name; requirements and entry points by its metadata."""

    path: Path
    name: str
    version: str
    tags: frozenset[Tag]
    requires: tuple[Requirement, ...]
    requires_python: str
    strategies: Mapping[str, str]
    """Name → module:Class."""

    def fits(self, platform: Platform, python: str) -> bool:
        """Tell whether it installs on ``platform`` with CPython ``python`` (such as ``3.11``)."""
        return not self.tags.isdisjoint(_accepted(platform, python)) and Version(
            f"{python}.0"
        ) in SpecifierSet(self.requires_python)


def read(path: Path) -> Wheel:
    """What the wheel in ``path`` says. WheelError when it is none."""
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inside = {
                member.partition("/")[2]: member
                for member in archive.namelist()
                if member.partition("/")[0].endswith(".dist-info")
            }
            metadata = HeaderParser().parsestr(archive.read(inside["METADATA"]).decode())
            points = configparser.ConfigParser(delimiters=("=",))
            points.optionxform = str  # type: ignore[assignment, method-assign]
            if "entry_points.txt" in inside:
                points.read_string(archive.read(inside["entry_points.txt"]).decode())
        requires = tuple(Requirement(text) for text in metadata.get_all("Requires-Dist", []))
    except (InvalidWheelFilename, InvalidRequirement, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise WheelError(
            f"{path.name} is no wheel that pip would take ({error}). Build it again with `uv build --wheel`"
        ) from None
    offered = dict(points[GROUP]) if points.has_section(GROUP) else {}
    needs_python = metadata.get("Requires-Python", "")
    return Wheel(path, str(name), str(version), tags, requires, needs_python, offered)


def gaps(
    wheels: Iterable[Wheel], core: Mapping[str, str], platform: Platform, pythons: Iterable[str]
) -> list[str]:
    """What would keep ``wheels`` from being installed beside the core's distributions (name → version)."""
    given = tuple(wheels)
    found: dict[str, None] = {}
    for python in pythons:
        usable = [wheel for wheel in given if wheel.fits(platform, python)]
        there = {**core, **{wheel.name: wheel.version for wheel in usable}}
        for name in sorted({wheel.name for wheel in given} - {wheel.name for wheel in usable}):
            wanted = ", ".join(wheel.path.name for wheel in given if wheel.name == name)
            found[f"{wanted} is not for {platform.name}, Python {python}"] = None
        for wheel in usable:
            for need in wheel.requires:
                if need.marker is not None and not need.marker.evaluate(platform.environment(python)):
                    continue
                version = there.get(canonicalize_name(need.name))
                if version is None:
                    found[f"{wheel.name} needs {need.name}{need.specifier}, which is not in the lock"] = None
                elif not need.specifier.contains(version, prereleases=True):
                    found[
                        f"{wheel.name} {wheel.version} needs {need.name}{need.specifier}, there is {version}"
                    ] = None
    return list(found)


def _accepted(platform: Platform, python: str) -> set[Tag]:
    version = tuple(int(part) for part in python.split("."))
    names = list(platform.pip_platforms)
    accepted = set(cpython_tags(version, platforms=names))
    accepted |= set(compatible_tags(version, f"cp{''.join(map(str, version))}", names))
    return accepted
