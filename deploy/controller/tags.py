"""The tags that a playbook and the roles beside it know; pure but for reading them.

Ansible runs nothing for a tag that does not exist, and calls that a success.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

_ALWAYS_KNOWN = frozenset({"all", "always", "never", "tagged", "untagged"})
_OF_MOLECULE = frozenset({"notest", "molecule-notest", "molecule-idempotence-notest"})
"""What Molecule leaves out in every playbook."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def tags_of(playbook: Path) -> frozenset[str]:
    """Every tag in a playbook and in the tasks of its roles, which are in `roles/` beside it."""
    plays = _read(playbook)
    roles = {role["role"] for play in plays for role in play.get("roles", ())}
    files = [file for role in roles for file in playbook.parent.glob(f"roles/{role}/tasks/**/*.yml")]
    return frozenset(tag for part in (plays, *map(_read, files)) for tag in _tags(part))


def unknown(playbook: Path, chosen: Collection[str]) -> str:
    """A sentence about those of `chosen` (`--tags`, `--skip-tags`) that do not exist; empty when all do."""
    known = tags_of(playbook)
    wrong = [tag for tag in chosen if tag not in known | _ALWAYS_KNOWN | _OF_MOLECULE]
    if not wrong:
        return ""
    close = [near for tag in wrong for near in difflib.get_close_matches(tag.lower(), known, n=1)]
    hints = f" (did you mean {', '.join(close)}?)" if close else ""
    return (
        f"{playbook.name} has no tag {', '.join(map(repr, wrong))}{hints}; it has "
        f"{', '.join(sorted(known - _ALWAYS_KNOWN))}. Nothing was changed"
    )


def _read(file: Path) -> Any:
    return yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 -- the safe one


def _tags(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for name, value in found.items():
            if name == "tags":
                yield from [value] if isinstance(value, str) else value
            else:
                yield from _tags(value)
    elif isinstance(found, list):
        for each in found:
            yield from _tags(each)
