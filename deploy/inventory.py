"""What an `inventory/<environment>.py` gives to pyinfra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.operations import context, run


def hosts_of(inventory_py: str) -> list[tuple[str, dict[str, Any]]]:
    """Hosts for pyinfra from the `.yml` beside an `inventory/<environment>.py`, with connection data only."""
    of = context.load(Path(inventory_py).with_suffix(".yml"))
    run.prepare(of)
    return context.hosts(of)
