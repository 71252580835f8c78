"""What the release tool needs of the operating system: one interface, chosen once, imported only then.

The modules `system` of :mod:`mt5crs_release.systems.linux` and `….windows` are the two answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mt5crs_release.systems.linux.systemd import Systemd
    from mt5crs_release.systems.windows.manager import WindowsServices

    Services = Systemd | WindowsServices

Owner = tuple[int, int]


class System(Protocol):
    """An operating system. Paths are those of this host; errors are OSError unless said otherwise."""

    links_units: bool
    """Whether unit files are linked into the system; otherwise the launcher reads them where they are."""
    keeps_modes: bool
    """Whether files have the mode they were written with."""

    def root(self) -> Path:
        """Return the root of a real host: what ``--root`` is by default."""

    def base(self, root: Path) -> Path:
        """Return the tool's own directory below ``root``."""

    def allowed_signers(self, root: Path) -> Path:
        """Return the file that says whose bundles are accepted."""

    def may_change(self) -> bool:
        """Tell whether this process may change the host."""

    def boot_id(self) -> str:
        """Return an identifier of this boot."""

    def boot_clock(self) -> float:
        """Return seconds since boot including suspended time; no change of the date moves it."""

    def try_lock(self, descriptor: int) -> bool:
        """Take the lock of an open file without waiting; it is gone exactly when its holder is."""

    def create_file(self, path: Path, content: bytes, mode: int, owner: Owner | None) -> None:
        """Create ``path``, on disk when this returns; FileExistsError when there is something."""

    def replace(self, source: Path, target: Path) -> None:
        """Give file or link ``source`` the name ``target`` in one step."""

    def publish(self, source: Path, target: Path) -> None:
        """Give directory ``source`` its final name."""

    def sync_directory(self, path: Path) -> None:
        """Put the entries of directory ``path`` on disk."""

    def sync_file_system(self, path: Path) -> None:
        """Put everything written below ``path`` on disk; FailedError when the disk reports an error."""

    def read_pointer(self, path: Path) -> str:
        """Return what ``path`` points to."""

    def make_pointer(self, path: Path, target: str) -> None:
        """Create a pointer at ``path``, which is free."""

    def follow(self, pointer: Path) -> Path:
        """Return the directory programs are told for ``pointer``: itself where the system follows it."""

    def link_directory(self, link: Path, target: Path) -> None:
        """Make ``link`` show what is in directory ``target``."""

    def owner(self, user: str, group: str) -> Owner | None:
        """Return numbers for names, ``None`` where ownership is not given away; KeyError when unknown."""

    def protect(self, directory: Path) -> None:
        """Shut others out of ``directory``, still empty; FailedError when that cannot be done."""

    def release(self, directory: Path) -> None:
        """All of a generation is written: let in who may be; FailedError when others could read secrets."""

    def make_runtime(self, target: Path) -> None:
        """Create an empty virtual environment at ``target``."""

    def runtime_needs(self) -> str:
        """Return a Python statement that an interpreter carries out if it has what the services load."""

    def python_remedy(self) -> str:
        """Return what to do when this host's Python is incomplete."""

    def runtime_python(self, target: Path) -> Path:
        """Return the interpreter of the virtual environment ``target``."""

    def runtime_library(self, target: Path) -> Path:
        """Return the directory of the modules of the virtual environment ``target``."""

    def environment(self) -> dict[str, str]:
        """Return the environment of a command of the health gate."""

    def build_environment(self, directory: Path) -> dict[str, str]:
        """Return the environment in which a runtime is built; temporary files go to ``directory``."""

    def own_program(self, program: Path) -> list[str]:
        """Return the command line that runs the zipapp ``program``."""

    def services(self, base: Path, beat: Callable[[], None] = lambda: None) -> Services:
        """Return what starts and stops services; ``beat`` is called while a long job is waited for."""

    def active(self, base: Path, units: Sequence[str]) -> Mapping[str, str]:
        """Return the active state of ``units`` as ``systemctl`` words it; unknown ones are missing."""


_chosen: list[System] = []


def here() -> System:
    """Return this host's system."""
    if not _chosen:
        _chosen.append(_native())
    return _chosen[0]


def use(system: System) -> System:
    """Make ``system`` the one, for a modelled host; return the one before."""
    before = _chosen[0] if _chosen else _native()
    _chosen[:] = [system]
    return before


def _native() -> System:
    if sys.platform != "win32":
        from mt5crs_release.systems.linux.system import Linux

        return Linux()
    from mt5crs_release.systems.windows.system import Windows

    return Windows()
