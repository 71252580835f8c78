"""`python -m mt5crs.strategy`: exits 0 after SIGTERM, 1 when the strategy fails, 78 for bad settings."""

from __future__ import annotations

import sys

from mt5crs.service import program
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.runner import Runner


def main() -> int:
    """Run until told to stop."""
    return program.main("strategy", StrategySettings, Runner)


if __name__ == "__main__":
    sys.exit(main())
