"""`python -m mt5crs.reconciler`: exits 0 after SIGTERM, 1 on SystemHaltException, 78 for bad settings."""

from __future__ import annotations

from mt5crs.reconciler.halt import SystemHaltException
from mt5crs.reconciler.service import Reconciler
from mt5crs.service import exits, program
from mt5crs.settings.reconciler import ReconcilerSettings


def main() -> int:
    """Run until told to stop."""
    return program.main("reconciler", ReconcilerSettings, Reconciler, foreseen=(SystemHaltException,))


if __name__ == "__main__":
    exits.leave(main())
