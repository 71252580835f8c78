"""Which system this host runs. What Windows does differently is in :mod:`mt5crs_release.windows`."""

from __future__ import annotations

import os

WINDOWS = os.name == "nt"
"""Read where it is needed (``system.WINDOWS``), never copied: a modelled host sets it."""
