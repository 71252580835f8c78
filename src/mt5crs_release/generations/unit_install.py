"""Starting at boot for the units a generation brings.

``systemctl enable`` resolves a linked unit down to the generation's directory, which a later generation
leaves and pruning removes. So the tool makes the links itself, to the name that goes through ``current``.
"""

from __future__ import annotations

import re
from pathlib import Path

from mt5crs_release.storage import store

_KINDS = {"WantedBy": "wants", "RequiredBy": "requires"}
_TARGET = re.compile(r"[A-Za-z0-9:_.@-]+\Z")


def install_directories(text: str) -> list[str]:
    """Return the directories that name ``text`` 's unit when enabled, such as ``multi-user.target.wants``."""
    section, found = "", []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped
        key, equals, value = stripped.partition("=")
        if section == "[Install]" and equals and key.strip() in _KINDS:
            kind = _KINDS[key.strip()]
            found += [f"{target}.{kind}" for target in value.split() if _TARGET.match(target)]
    return sorted(set(found))


def link_at_boot(units: Path, unit: str, directories: list[str]) -> None:
    """Make ``unit`` start at boot by exactly ``directories`` (below ``units``, /etc/systemd/system)."""
    for directory in directories:
        store.ensure_directory(units / directory)
        store.switch_link(units / directory / unit, str(units / unit))
    for kind in _KINDS.values():
        for place in sorted(units.glob(f"*.{kind}")):
            if place.name not in directories:
                store.remove_link(place / unit)
