"""Windows programs that run on this host under Wine, and where their files are."""

from __future__ import annotations

import ntpath
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")
TERMINALS = ("terminal64.exe", "terminal.exe")
_UPDATERS = ("liveupdate.exe", "mt5setup.exe", "metatrader5setup.exe")
_UPDATES_FROM = ("\\webinstall\\", "\\liveupdate\\")


class Program(Struct, frozen=True, kw_only=True):
    """A process of this host."""

    pid: int
    user: str
    words: tuple[str, ...]
    prefix: str = ""
    """Its WINEPREFIX; empty where that could not be read."""

    def named(self) -> str:
        """The program's own name, in lower case."""
        return ntpath.basename(self.words[0]).lower() if self.words else ""

    def is_terminal(self) -> bool:
        """Whether it is a MetaTrader terminal."""
        return self.named() in TERMINALS

    def is_update(self) -> bool:
        """Whether it replaces a terminal by a newer one."""
        told = " ".join(self.words).lower().replace("/", "\\")
        return self.named() in _UPDATERS or any(each in told for each in _UPDATES_FROM)


def programs(proc: Path = PROC) -> Iterator[Program]:
    """Windows programs that run on this host, and whose they are."""
    for place in proc.glob("[0-9]*"):
        try:
            words = tuple((place / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
            user = place.owner()
        except (OSError, KeyError):  # it has ended, or its user has no name
            continue
        if words[0].lower().endswith(".exe"):
            yield Program(pid=int(place.name), user=user, words=words, prefix=_prefix_of(place))


def _prefix_of(place: Path) -> str:
    try:
        variables = (place / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return next((each.partition("=")[2] for each in variables if each.startswith("WINEPREFIX=")), "")


def on_this_host(path: str, prefix: Path | None) -> Path:
    r"""Where a Windows path is: below Wine's drives in `prefix`, whose letters differ in case from Windows'.

    `C:/x/y.exe` is `PREFIX/dosdevices/c:/x/y.exe`, in whatever case it is there.
    """
    if prefix is None or len(path) < 2 or path[1] != ":":
        return Path(path)
    place = prefix / "dosdevices" / f"{path[0].lower()}:"
    for name in path[2:].replace("\\", "/").strip("/").split("/"):
        there = place / name
        if not there.exists() and place.is_dir():
            there = next((each for each in place.iterdir() if each.name.lower() == name.lower()), there)
        place = there
    return place
