"""`python -m mt5crs.hub`: exits 0 after SIGTERM, 1 when it fails, 78 for bad settings."""

from __future__ import annotations

from mt5crs.hub.service import Hub
from mt5crs.service import exits, program
from mt5crs.settings.hub import HubSettings


def main() -> int:
    """Run until told to stop."""
    return program.main("hub", HubSettings, Hub, read_again=Hub.take)


if __name__ == "__main__":
    exits.leave(main())
