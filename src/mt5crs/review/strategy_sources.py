"""What a strategy's bundle may be made of: the files that `strategies/<name>.yml` of a tree names."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mt5crs.review.model import ReviewError
from mt5crs.review.tree import Tree, contents

DIRECTORY: Final = "strategies"


class Sources(NamedTuple):
    """Contents, by what the bundle calls them."""

    source: Mapping[str, bytes]
    """Path below the folder of the strategy's project → content."""
    wheels: tuple[bytes, ...]
    """Wheels that are in the tree as they are."""
    lock: str
    data: Mapping[str, bytes]
    """Name in the bundle → content."""

    def has(self, inside: str, content: bytes) -> bool:
        """Whether a file of a built wheel is one of the project's, at a place that ends with its path."""
        return any(
            content == each and (path == inside or path.endswith(f"/{inside}"))
            for path, each in self.source.items()
        )


def read(tree: Tree, name: str) -> Sources:
    """The sources of the strategy called `name`.

    :raises ReviewError: its definition is not in the tree, or names what is not
    """
    import yaml  # with the tools of the review: no host has it

    file = f"{DIRECTORY}/{name}.yml"
    try:
        given: dict[str, Any] = yaml.safe_load(contents(tree, [file])[file]) or {}
        folder = _inside(given["source"]) if given.get("source") else None
        lock = given.get("lock") or (f"{given['source']}/requirements.lock" if folder else None)
        data = {f"data/{inside}": _inside(path) for inside, path in (given.get("data") or {}).items()}
        wheels = [_inside(path) for path in given.get("wheels") or ()]
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ReviewError(f"{file} of the tree {tree.id[:12]} cannot be read ({error}); commit it") from None
    missing = [path for path in (*data.values(), *wheels) if path not in tree.files]
    if missing:
        raise ReviewError(
            f"{file} names {', '.join(missing)}, which the tree {tree.id[:12]} does not have, so nobody has "
            "reviewed it; put it into the repository"
        )
    below = [path for path in tree.files if folder and path.startswith(f"{folder}/")]
    locked = [_inside(lock)] if lock and _inside(lock) in tree.files else []
    found = contents(tree, {*below, *locked, *data.values(), *wheels})
    return Sources(
        source={path.removeprefix(f"{folder}/"): found[path] for path in below if path in found},
        wheels=tuple(found[path] for path in wheels if path in found),
        lock="".join(found[path].decode(errors="replace") for path in locked if path in found),
        data={inside: found[path] for inside, path in data.items() if path in found},
    )


def _inside(path: str) -> str:
    """Where a path of the definition lies in the tree."""
    return posixpath.normpath(posixpath.join(DIRECTORY, path))
