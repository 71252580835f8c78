"""Whether the `.env` files of this host can be read by their owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

WANTED = 0o600


def env_files_of_host(env_file: Path) -> list[Path]:
    """The `.env` of every service whose generations lie beside that one's (`…/SERVICE/current/.env`)."""
    found = {env_file.absolute()}
    if len(env_file.absolute().parents) > 2:
        found |= set(env_file.absolute().parents[2].glob("*/current/.env"))
    return sorted(found)


def readable_by_others(path: Path) -> str | None:
    """Name the wrong mode and its remedy; None when it is 0600, or where rights are not modes (Windows).

    OSError when there is no such file.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name != "posix" or mode == WANTED:
        return None
    return f"{path} has mode {mode:04o}, must be 0600; deploy again or run `chmod 0600 {path}`"
