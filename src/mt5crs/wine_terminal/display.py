"""A display server of this host (Xvfb): its key, and whether one is there."""

from __future__ import annotations

import secrets
import socket
import struct
import sys
from pathlib import Path

RUNTIME = Path("/run/mt5crs-terminal")
"""The unit's RuntimeDirectory."""
KEY = "xauthority"
"""In there, the key of the display: what X clients take from XAUTHORITY."""
_ANY_HOST = 0xFFFF
_SCHEME = b"MIT-MAGIC-COOKIE-1"
_ANSWERS_WITHIN_S = 2.0


def number_of(display: str) -> str:
    """The server's number in `:1` or `:1.0`."""
    return display.lstrip(":").partition(".")[0]


def answers(display: str) -> bool | None:
    """Whether a display server of this host is there (`:1`); None where such a question has no meaning."""
    if not sys.platform.startswith("linux"):
        return None
    number = number_of(display)
    for address in (f"\0/tmp/.X11-unix/X{number}", f"/tmp/.X11-unix/X{number}"):  # noqa: S108
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(_ANSWERS_WITHIN_S)
            try:
                asked.connect(address)
            except OSError:
                continue
            return True
    return False


def write_key(file: Path, display: str) -> None:
    """Write a new key in the format that X clients read from XAUTHORITY (Xau(3)), for its owner alone.

    Without one, every user of the host could read the screen and type into it.
    """
    fields = (b"", number_of(display).encode(), _SCHEME, secrets.token_bytes(16))
    packed = struct.pack(">H", _ANY_HOST) + b"".join(struct.pack(">H", len(each)) + each for each in fields)
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_bytes(packed)
