"""Which services there are, and where each serves health and figures. Its package and its settings say so."""

from __future__ import annotations

import importlib
from pathlib import Path

from mt5crs.settings.schema import Field, Settings, fields


def programs() -> list[str]:
    """Names of the services that are programs of ours: packages that are run (`python -m mt5crs.<name>`)
    and have settings of that name.
    """
    run = (path.parent.name for path in Path(__file__).parents[1].glob("*/__main__.py"))
    return sorted(name for name in run if Path(__file__).with_name(f"{name}.py").is_file())


def settings_of(service: str) -> type[Settings]:
    """What a service loads. AttributeError, ImportError: there is no such service."""
    module = importlib.import_module(f"mt5crs.settings.{service}")
    found: type[Settings] = getattr(module, f"{service.capitalize()}Settings")
    return found


def endpoint_of(service: str) -> tuple[Field, Field]:
    """The settings of the address and the port where a program of ours serves health and figures."""
    cls = settings_of(service)
    declared = {field.name: field for field in fields(cls)}
    address, port = cls.endpoint
    return declared[address], declared[port]
