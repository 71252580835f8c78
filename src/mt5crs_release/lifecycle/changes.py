"""What a generation changes, by name: settings of ``.env`` files by their keys, other files, the code.

Values are compared and never told: they may be secrets.
"""

from __future__ import annotations

import json
from pathlib import Path

from mt5crs_release.generations.env_file import settings

CODE = "code"


def between(before: Path | None, after: Path) -> list[str]:
    """Return the names of what differs between two generations' directories.

    :param before: the generation that is left; ``None``: nothing ran. One that cannot be read tells nothing.
    """
    try:
        old, new = (json.loads((one / "manifest.json").read_text()) for one in (before or after, after))
        found = [] if old.get("runtime") == new.get("runtime") else [CODE]
        for path in sorted({*old["files"], *new["files"]}):
            then, now = old["files"].get(path), new["files"].get(path)
            if then != now:
                found += _named(before or after, after, path, both=bool(then and now))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return found


def _named(before: Path, after: Path, path: str, *, both: bool) -> list[str]:
    if not (both and path.endswith(".env")):
        return [path]
    old, new = (settings((one / path).read_text()) for one in (before, after))
    return [f"{path} {key}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)] or [path]
