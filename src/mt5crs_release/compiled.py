"""The tool's own modules as this host's Python compiles them, kept: compiling takes half of a short call.

Python keeps what it has compiled of modules in directories, and not of those in a zipapp. So the first call
as root writes them into a file of its own, and later calls take the modules from there. The name of the file
holds the digest of the sources and the version of Python: another of either makes another file.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from types import CodeType
from zipimport import zipimporter

from mt5crs_release.version import SOURCES

INSTALLED = Path("/usr/local/sbin/mt5crs-release")
BASE = Path("/var/cache")
_UNCHECKED = b"\x01\0\0\0"
"""Flags of a compiled module that is not compared with its source at each import (PEP 552)."""
_HEAD_BYTES = 16


def kept() -> Path:
    """The file of this tool and this Python."""
    return BASE / "mt5crs-release" / f"{SOURCES}-{sys.implementation.name}-{sys.hexversion:x}.zip"


def use(package: list[str], loader: object) -> None:
    """Have the modules of ``package`` (its path) come from the kept file, which is made if need be.

    Only of the tool where hosts have it: a copy that somebody tries leaves nothing behind.
    """
    if sys.platform == "win32" or not isinstance(loader, zipimporter) or loader.archive != str(INSTALLED):
        return
    path = kept()
    try:
        if not path.exists() and os.geteuid() == 0:
            _keep(path)
        if all(map(_of_root_alone, (BASE, path.parent, path))):
            package.insert(0, f"{path}/{package[0].rpartition('/')[2]}")
    except OSError:  # not there and not to be made, a disk that is full or read-only: as without it
        return


def changed() -> list[str]:
    """Modules in the kept file that are not what the tool's sources compile to; sorted."""
    import marshal
    import zipfile

    with zipfile.ZipFile(kept()) as file:
        found = {name: file.read(name)[_HEAD_BYTES:] for name in file.namelist()}
    return sorted(
        name
        for name, (_, code) in _modules().items()
        if f"{name}c" not in found or marshal.loads(found[f"{name}c"]) != code  # noqa: S302
    )


def _keep(path: Path) -> None:
    """Write the file whole or not at all, and remove those of earlier tools."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(_compiled())
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    for other in path.parent.iterdir():
        if other != path:
            other.unlink()


def _compiled() -> bytes:
    """The tool's modules, compiled, as a zip file."""
    import importlib.util
    import io
    import marshal
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, (source, code) in _modules().items():
            head = importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(source)
            file.writestr(f"{name}c", head + marshal.dumps(code))
    return buffer.getvalue()


def _modules() -> dict[str, tuple[bytes, CodeType]]:
    """Source and code of every module of the tool, by its name in it."""
    import zipfile

    with zipfile.ZipFile(INSTALLED) as archive:
        sources = {name: archive.read(name) for name in archive.namelist()}
    return {
        name: (source, compile(source, f"{INSTALLED}/{name}", "exec", dont_inherit=True))
        for name, source in sources.items()
    }


def _of_root_alone(path: Path) -> bool:
    """Whether nobody but root can have written there."""
    status = path.lstat()
    return status.st_uid == 0 and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
