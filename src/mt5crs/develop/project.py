"""The folder of a strategy on its author's machine: made new, or found by its definition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")

_DEFINITION = """\
---
# What the bundle of this strategy holds; docs/strategy.md explains the keys.
source: {name}
# data: {{model.json: {name}/model.json}}
"""
_PROJECT = """\
[build-system]
requires = ["hatchling==1.31.0"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "1.0.0"
requires-python = ">=3.10"
dependencies = []

[project.entry-points."mt5crs.strategies"]
{name} = "{name}:{class_name}"

[tool.hatch.build.targets.wheel]
packages = ["src/{name}"]

[tool.pytest.ini_options]
pythonpath = ["src"]
"""
_CODE = '''\
"""{class_name}: holds one position for a while, then closes it. Replace this by your idea."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mt5crs.strategy.api import Option, Strategy, Trading


class {class_name}(Strategy):
    """Buys, holds, closes."""

    known_options = {{
        "hold_s": Option("number", "How long a position is held, in seconds.", default=2, gt=0, le=86400),
    }}

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._hold_ms = self.options["hold_s"] * 1000

    def on_timer(self, trading: Trading) -> None:
        """Decide on the broker's positions alone: this process may be killed at any line."""
        mine = trading.positions()
        if not mine:
            trading.market("BUY", trading.volume, max_slippage_points=50)
        elif trading.quote(trading.symbol).time_msc - mine[0].time_msc >= self._hold_ms:
            trading.close(mine[0])
'''
_TEST = '''\
"""{class_name} against the simulated broker, in this process."""

from pathlib import Path

import pytest
from {name} import {class_name}

from mt5crs.develop.practice import practice


def test_it_holds_one_position_for_its_time(tmp_path: Path) -> None:
    strategy = {class_name}({{"hold_s": 2}})
    with practice(tmp_path) as trading:
        strategy.on_timer(trading)
        strategy.on_timer(trading)
        assert len(trading.positions()) == 1
        trading.advance(3)
        strategy.on_timer(trading)
        assert trading.positions() == ()


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(ValueError, match="no option holds; did you mean hold_s"):
        {class_name}({{"holds": 2}})
'''


class ProjectError(Exception):
    """The project cannot be made or used; the text names cause and remedy."""


@dataclass(frozen=True)
class Project:
    """A strategy as its definition describes it."""

    name: str
    loads: str
    """module:Class, or a name that an installed wheel registers."""
    path: Path | None
    """What goes into PYTHONPATH."""
    data: dict[str, Path]

    @contextmanager
    def data_directory(self) -> Iterator[str]:
        """A directory that looks as the bundle's data on a host; empty text when there is none."""
        if not self.data:
            yield ""
            return
        with TemporaryDirectory(prefix="mt5crs-data-") as directory:
            for name, file in self.data.items():
                link = Path(directory) / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
            yield directory


def make(name: str, directory: Path) -> list[Path]:
    """Write a new project with one test; the files. Raises ProjectError when something is there already."""
    if not _NAME.match(name):
        raise ProjectError(
            f"{name!r} is no name of a strategy: a lower-case letter, then lower-case letters, digits and _"
        )
    words = {
        "name": name,
        "distribution": name.replace("_", "-"),
        "class_name": "".join(part.capitalize() for part in name.split("_")),
    }
    files = {
        directory / f"{name}.yml": _DEFINITION,
        directory / name / "pyproject.toml": _PROJECT,
        directory / name / "src" / name / "__init__.py": _CODE,
        directory / name / "tests" / f"test_{name}.py": _TEST,
    }
    there = [path for path in (directory / name, *files) if path.exists()]
    if there:
        raise ProjectError(f"{there[0]} exists already; choose another name, or remove it")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**words), encoding="utf-8")
    return list(files)


def find(name: str, directory: Path) -> Project:
    """The strategy that `directory`/`name`.yml defines. Raises ProjectError."""
    import tomllib

    from deploy.bundle import strategy_definition
    from deploy.bundle.wheelhouse import WheelError

    try:
        defined = strategy_definition.read(name, directory)
    except WheelError as error:
        raise ProjectError(str(error)) from None
    if defined.source is None:
        return Project(name, name, None, defined.data)
    text = (defined.source / "pyproject.toml").read_text(encoding="utf-8")
    points = tomllib.loads(text).get("project", {}).get("entry-points", {}).get("mt5crs.strategies", {})
    if not points:
        raise ProjectError(
            f"{defined.source.name}/pyproject.toml registers no strategy; add "
            f'[project.entry-points."mt5crs.strategies"] with {name} = "module:Class"'
        )
    source = defined.source / "src"
    loads = points.get(name) or next(iter(points.values()))
    return Project(name, loads, source if source.is_dir() else source.parent, defined.data)
