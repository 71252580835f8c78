"""Imports every module of every package, so that a dependency which the set-up does not install is found."""

from __future__ import annotations

import importlib
import pkgutil

PACKAGES = ("deploy", "images", "lab", "mt5crs", "mt5crs_release", "pipeline")


def main() -> None:
    """Import them all; the first that cannot be imported ends it."""
    names = [
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        if not module.name.endswith(".__main__")
    ]
    for name in names:
        importlib.import_module(name)
    print(f"{len(names)} modules of {', '.join(PACKAGES)} imported")


if __name__ == "__main__":
    main()
