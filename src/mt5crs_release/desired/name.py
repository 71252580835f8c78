"""Names of services: `strategy`, or `strategy@trend` for the one of the instance `trend`.

A machine may have several instances of the same services, each with units, generations and state of its own.
"""

from __future__ import annotations

import re

AT = "@"
"""As in systemd's unit names."""
_SERVICE = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
_INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,19}\Z")


def of_instance(service: str, instance: str) -> str:
    """Return the name of an instance's service; ``service`` itself if ``instance`` is empty."""
    return f"{service}{AT}{instance}" if instance else service


def plain(name: str) -> str:
    """Return which service ``name`` is, whatever its instance."""
    return name.partition(AT)[0]


def instance_of(name: str) -> str:
    """Return the instance of a service; empty if it has none."""
    return name.partition(AT)[2]


def is_plain_name(name: str) -> bool:
    """Tell whether ``name`` may name a service that is of no instance."""
    return _SERVICE.match(name) is not None


def is_instance_name(name: str) -> bool:
    """Tell whether ``name`` may name an instance."""
    return _INSTANCE.match(name) is not None


def is_service_name(name: str) -> bool:
    """Tell whether ``name`` may name a service, of an instance or none (it becomes a directory name)."""
    service, at, instance = name.partition(AT)
    return is_plain_name(service) and (not at or is_instance_name(instance))
