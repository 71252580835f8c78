"""What a strategy's bundle consists of: `strategies/<name>.yml`, checked before anything is built."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

from deploy.bundle.archive import ROOT
from deploy.bundle.wheelhouse import PYTHONS, WheelError
from mt5crs_release.bundles.bundle import SAFE_PATH

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's keys. Paths are relative to the file, or absolute."""

    source: str | None = None
    """Folder with the strategy's pyproject.toml; its wheel is built."""
    wheels: tuple[str, ...] = ()
    """Wheels that exist already."""
    lock: str | None = None
    """Hashed requirements of what it needs besides; by default `requirements.lock` in `source`."""
    data: dict[str, str] = {}
    """Name under which the strategy finds a file → the file. Models belong here."""
    pythons: tuple[str, ...] = PYTHONS
    version: str | None = None
    """By default the version of the first wheel."""


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """A checked definition with its paths."""

    name: str
    file: Path
    source: Path | None
    wheels: tuple[Path, ...]
    lock: Path | None
    data: dict[str, Path]
    pythons: tuple[str, ...]
    version: str | None


def read(name: str, directory: Path = ROOT / "strategies") -> Strategy:
    """The strategy called `name`. WheelError that names every problem of its definition."""
    if not _NAME.match(name):
        raise WheelError(
            f"{name!r} is no name of a strategy: a lower-case letter, then lower-case letters, digits and _, "
            "at most 40. Rename strategies/….yml"
        )
    directory = directory.absolute()  # programs are run in other directories
    file = directory / f"{name}.yml"
    try:
        given = msgspec.convert(yaml.safe_load(file.read_text(encoding="utf-8")) or {}, Definition)
    except FileNotFoundError:
        there = ", ".join(sorted(path.stem for path in directory.glob("*.yml"))) or "none"
        raise WheelError(
            f"there is no strategies/{name}.yml (there is: {there}). Write one: docs/strategy.md"
        ) from None
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise WheelError(f"{file.name}: {error}. Correct it; docs/strategy.md lists its keys") from None
    below = file.parent
    source = below / given.source if given.source else None
    lock = below / given.lock if given.lock else (source / "requirements.lock" if source else None)
    found = Strategy(
        name=name,
        file=file,
        source=source,
        wheels=tuple(below / path for path in given.wheels),
        lock=lock,
        data={inside: below / path for inside, path in given.data.items()},
        pythons=given.pythons,
        version=given.version,
    )
    problems = list(_problems(found, lock_named=given.lock is not None))
    if problems:
        raise WheelError(f"{file.name}: " + "; ".join(problems) + ". Correct it; nothing was built")
    return found


def _problems(strategy: Strategy, *, lock_named: bool) -> list[str]:
    found = []
    if strategy.source is None and not strategy.wheels and not strategy.data:
        found.append("it names neither source nor wheels nor data")
    if strategy.source is not None and not (strategy.source / "pyproject.toml").is_file():
        found.append(f"source {strategy.source.name} has no pyproject.toml")
    found += [f"wheel {path.name} does not exist" for path in strategy.wheels if not path.is_file()]
    if lock_named and strategy.lock is not None and not strategy.lock.is_file():
        found.append(f"lock {strategy.lock.name} does not exist")
    for inside, path in strategy.data.items():
        if not SAFE_PATH.match(inside):
            found.append(f"data name {inside!r} may hold letters, digits, . _ + ! - and / only")
        if not path.is_file():
            found.append(f"data file {path.name} does not exist")
    unknown = [python for python in strategy.pythons if python not in PYTHONS]
    if unknown or not strategy.pythons:
        found.append(f"pythons {', '.join(unknown) or 'is empty'}; hosts have {', '.join(PYTHONS)}")
    if not strategy.wheels and strategy.source is None and strategy.version is None:
        found.append("version is missing, and there is no wheel to read it from")
    return found
