"""Windows: a pointer in a small file, rights instead of modes, junctions, the launcher's services.

Sources: Microsoft's documentation of ``MoveFileExW`` (replace and write-through) and of junctions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt5crs_release.systems.system import Owner
from mt5crs_release.systems.windows import rights as windows_rights
from mt5crs_release.systems.windows.kernel import Kernel

if TYPE_CHECKING:
    from mt5crs_release.systems.system import Services

ROOT = "C:/ProgramData/mt5crs"
_SHARING_VIOLATION = (5, 32, 33)
_RENAME_WAIT_S = 5.0
_POLL_S = 0.2


class Windows:
    """See :class:`mt5crs_release.systems.system.System`."""

    links_units = False
    keeps_modes = False

    def __init__(self, kernel: Kernel | None = None, root: str = ROOT) -> None:
        """Take the real Windows, or a modelled one."""
        self.kernel = kernel or Kernel()
        self._root = Path(root)

    def root(self) -> Path:
        """Return the tool's own directory, which is the root here."""
        return self._root

    def base(self, root: Path) -> Path:
        """Return ``root``."""
        return root

    def allowed_signers(self, root: Path) -> Path:
        """Return the file that says whose bundles are accepted."""
        return root / "allowed_signers"

    def may_change(self) -> bool:
        """Tell whether this process is an administrator's."""
        return self.kernel.is_administrator()

    def boot_id(self) -> str:
        """Return what a volatile registry key keeps until the next boot."""
        return self.kernel.boot_id()

    def boot_clock(self) -> float:
        """Return seconds since boot."""
        return self.kernel.boot_clock()

    def try_lock(self, descriptor: int) -> bool:
        """Take the lock of an open file without waiting."""
        return self.kernel.try_lock(descriptor)

    def create_file(self, path: Path, content: bytes, mode: int, owner: Owner | None) -> None:
        """Create ``path``: its rights are those of its directory, set and checked before."""
        del mode, owner
        self.kernel.create_file(path, content)

    def replace(self, source: Path, target: Path) -> None:
        """Replace file ``target``, written through; waits for a virus scanner that has it open."""
        _patiently(lambda: self.kernel.replace(source, target))

    def publish(self, source: Path, target: Path) -> None:
        """Rename a directory, written through; waits as :meth:`replace` does."""
        _patiently(lambda: self.kernel.rename_directory(source, target))

    def sync_directory(self, path: Path) -> None:
        """Nothing to do: renames are written through."""

    def sync_file_system(self, path: Path) -> None:
        """Put everything written to the volume of ``path`` on disk."""
        self.kernel.flush_volume(path)

    def read_pointer(self, path: Path) -> str:
        """Return the content of the small file."""
        return path.read_text("utf-8")

    def make_pointer(self, path: Path, target: str) -> None:
        """Write a small file: no link can be replaced in one step here, a file can."""
        self.kernel.create_file(path, target.encode())

    def follow(self, pointer: Path) -> Path:
        """Return the directory that the file names."""
        try:
            return pointer.parent / self.read_pointer(pointer)
        except OSError:
            return pointer

    def link_directory(self, link: Path, target: Path) -> None:
        """Make a junction, which needs no privilege."""
        self.kernel.junction(link, target)

    def owner(self, user: str, group: str) -> Owner | None:
        """Return nothing: ``root`` stands for the administrators here, rights follow from the directory."""
        del user, group
        return None

    def protect(self, directory: Path) -> None:
        """Leave ``directory`` to SYSTEM, Administrators and, to read, the services' account."""
        windows_rights.protect(self.kernel, directory)

    def release(self, directory: Path) -> None:
        """Read every file's rights back; FailedError when anyone else is granted any."""
        windows_rights.check_rights(self.kernel, directory)

    def make_runtime(self, target: Path) -> None:
        """Create an empty virtual environment."""
        self.kernel.make_runtime(target)

    def runtime_needs(self) -> str:
        """Return imports, and the library that packages for any Python 3 load (pyzmq)."""
        return f"import ctypes, sqlite3; {self.kernel.load_stable_abi}"

    def python_remedy(self) -> str:
        """Return whose Python it should be; repackaged ones lack python3.dll or the launcher of venv."""
        return "pin the official NuGet package `python` (gateway_windows_python_archive) and deploy again"

    def runtime_python(self, target: Path) -> Path:
        r"""Return ``Scripts\\python.exe``."""
        return target / "Scripts/python.exe"

    def runtime_library(self, target: Path) -> Path:
        """Return ``Lib``."""
        return target / "Lib"

    def environment(self) -> dict[str, str]:
        """Return what a program needs to run at all."""
        return self.kernel.base_environment()

    def build_environment(self, directory: Path) -> dict[str, str]:
        """Return the same, with temporary files in ``directory``."""
        return {**self.environment(), "TEMP": str(directory), "TMP": str(directory)}

    def own_program(self, program: Path) -> list[str]:
        """Return the zipapp behind the interpreter that runs this."""
        return [sys.executable, str(program)]

    def services(self, base: Path, beat: Callable[[], None] = lambda: None) -> Services:
        """Return the services and tasks that start the launcher."""
        from mt5crs_release.systems.windows.manager import WindowsServices

        return WindowsServices(self.kernel, base, beat)

    def active(self, base: Path, units: Sequence[str]) -> Mapping[str, str]:
        """Return what the launcher has recorded."""
        return {name: unit.active for name, unit in self.services(base).look(units).items()}


def _patiently(action: Callable[[], None]) -> None:
    end = time.monotonic() + _RENAME_WAIT_S
    while True:
        try:
            return action()
        except OSError as error:
            if getattr(error, "winerror", None) not in _SHARING_VIOLATION or time.monotonic() >= end:
                raise
            time.sleep(_POLL_S)
