"""Whether systemd has the units of what runs as they were linked: none masked, none disabled, nothing added.

A service goes on while its unit is disabled or masked, and does not come back after a restart or a boot.
"""

from __future__ import annotations

import os
from pathlib import Path

from mt5crs_release.generations.before import DROP_INS
from mt5crs_release.generations.generation import Content
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import Host, ServicePaths
from mt5crs_release.systems import system


def problems(host: Host, paths: ServicePaths, content: Content) -> list[str]:
    """How the links to the units of ``content``, which runs, differ; an activation makes them anew."""
    if not system.here().links_units:
        return []
    found = []
    for unit in content.units:
        link = store.read_link(host.units / unit)
        if link == os.devnull:
            found.append(f"{unit} is masked")
        elif link != str(paths.current / "units" / unit):
            found.append(f"{unit} is not linked to what was staged")
        elif unlinked := _not_at_boot(host, unit, content.install.get(unit, [])):
            found.append(f"{unit} is disabled: it is not in {' and '.join(unlinked)}")
    return found


def drop_ins_of_others(host: Host, content: Content) -> list[str]:
    """Drop-ins beside the units of ``content`` that no generation brought, by path: they change how it runs.

    They stay: a deployment removes nothing that it has not brought.
    """
    if not system.here().links_units:
        return []
    found = []
    for unit in content.running:
        for place in (host.units, host.units.with_name("system.control"), host.volatile_units):
            found += [
                path
                for path in sorted((place / f"{unit}.d").glob("*.conf"))
                if not _brought(host, path, content)
            ]
    return [f"/{path.relative_to(host.root)}" for path in found]


def _brought(host: Host, path: Path, content: Content) -> bool:
    if path.is_relative_to(host.units):
        return str(path.relative_to(host.units)) in content.units
    return path.name.startswith(DROP_INS)


def _not_at_boot(host: Host, unit: str, directories: list[str]) -> list[str]:
    wanted = str(host.units / unit)
    return [name for name in directories if store.read_link(host.units / name / unit) != wanted]
