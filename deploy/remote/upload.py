"""How a file gets to a host through the standard input of one command; talks to no host itself."""

from __future__ import annotations

import shlex


def script(path: str, size: int, mode: int = 0o644) -> str:
    """Shell text, run as root, that writes its input of `size` bytes to `path`: complete or not at all.

    A connection that is lost ends the input like any other end, so the bytes are counted.
    """
    to, part = shlex.quote(path), shlex.quote(f"{path}.part.")
    return (
        f'part={part}$$ && trap \'rm -f "$part"\' EXIT && umask 077 && cat >"$part" && '
        f'[ "$(wc -c <"$part")" -eq {size} ] && chown root:root "$part" && chmod {mode:04o} "$part" && '
        f'sync "$part" && mv -f "$part" {to}'
    )
