"""Durable changes to the file system: after a crash each is either done or not begun.

Order everywhere: data to disk, then the rename, then the directory to disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from mt5crs_release.errors import FailedError
from mt5crs_release.storage.paths import TEMPORARY
from mt5crs_release.systems import system


def sync_directory(path: Path) -> None:
    """Put the entries of directory ``path`` on disk."""
    system.here().sync_directory(path)


def ensure_directory(path: Path, mode: int = 0o755) -> None:
    """Create ``path`` and its missing parents with ``mode`` whatever the umask, durably."""
    if path.is_dir():
        return
    ensure_directory(path.parent, mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode)
        path.chmod(mode)
    sync_directory(path.parent)


def write_new(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Create ``path``, on disk when this returns; never readable by others before it has its mode.

    :param owner: numeric user and group, ``None`` to leave them
    :raises FileExistsError: when ``path`` exists (a symbolic link is not followed either)
    """
    system.here().create_file(path, content, mode, owner)


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Replace ``path`` by ``content`` in one step; on an error the old one stays and nothing is left over."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        write_new(temporary, content, mode)
        system.here().replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_link(path: Path) -> str | None:
    """Return what ``path`` points to; ``None`` when it is none. On Windows it is a small file.

    :raises OSError: it cannot be read, so what it points to is not known
    """
    try:
        return system.here().read_pointer(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL or path.is_dir():
            return None  # something else than a pointer is there
        raise


def switch_link(path: Path, target: str) -> bool:
    """Make symbolic link ``path`` point to ``target`` in one step; return whether that changed anything."""
    if read_link(path) == target:
        return False
    if path.is_dir() and not path.is_symlink():
        raise FailedError(
            f"{path} is a directory where a symbolic link belongs",
            remedy=f"move it away by hand (mv {path} {path}.saved) and repeat the command",
        )
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        system.here().make_pointer(temporary, target)
        system.here().replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return True


def remove_link(path: Path) -> bool:
    """Remove symbolic link ``path`` durably; return whether there was one."""
    if read_link(path) is None:
        return False
    path.unlink()
    sync_directory(path.parent)
    return True


def publish_directory(temporary: Path, final: Path) -> None:
    """Give a finished directory its name. Its files must be on disk (:func:`write_new`)."""
    for directory, _, _ in os.walk(temporary, topdown=False):
        sync_directory(Path(directory))
    system.here().publish(temporary, final)
    sync_directory(final.parent)


def remove_tree(path: Path) -> None:
    """Remove directory ``path``: renamed first, so that a half-removed one is never taken for whole."""
    if not path.name.startswith(TEMPORARY):
        doomed = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}")
        path.rename(doomed)
        sync_directory(path.parent)
        path = doomed
    shutil.rmtree(path)


def sweep(directory: Path) -> bool:
    """Remove what an interrupted run left under construction in ``directory``; tell whether there was any."""
    found = False
    if not directory.is_dir():
        return found
    for path in sorted(directory.iterdir()):
        if path.name.startswith(TEMPORARY):
            found = True
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return found


def sweep_of(directory: Path, pid: int) -> None:
    """Remove what the dead run ``pid`` left in ``directory`` and one level below; others may work there."""
    for path in [*directory.glob(f"{TEMPORARY}*.{pid}"), *directory.glob(f"*/{TEMPORARY}*.{pid}")]:
        path.unlink(missing_ok=True)


def sync_file_system(path: Path) -> None:
    """Put everything written below ``path`` on disk (one call instead of one per file).

    :raises FailedError: when the disk reports an error
    """
    system.here().sync_file_system(path)
