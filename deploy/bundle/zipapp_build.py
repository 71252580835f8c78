"""The release tool as one executable file; two builds of the same sources are byte-identical."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/bin/python3 -IS\n"
"""Isolated, without site packages: standard library only, nothing of the caller's environment."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = """import sys

import mt5crs_release
from mt5crs_release import compiled

compiled.use(mt5crs_release.__path__, mt5crs_release.__loader__)
from mt5crs_release.cli.run import main

sys.exit(main())
"""


_VERSION = '"""What this tool was built from."""\n\nVERSION = {version!r}\nSOURCES = {sources!r}\n'
_SHOWN = 12


def build_zipapp(package: Path, version: str = "unknown") -> bytes:
    """Return the zipapp made of the modules in directory ``package`` (``…/mt5crs_release``).

    version: what ``--version`` says, beside a digest of the modules. No commit: a tool that does the same
    stays the same file, and no host has to be given it anew.
    """
    members = {
        path.relative_to(package.parent).as_posix(): path.read_bytes() for path in package.rglob("*.py")
    }
    members.pop(f"{package.name}/__main__.py", None)
    members["__main__.py"] = _MAIN.encode()
    members.pop(f"{package.name}/version.py", None)
    digest = hashlib.sha256(repr(sorted(members.items())).encode()).hexdigest()
    stated = _VERSION.format(version=version, sources=digest[:_SHOWN])
    members[f"{package.name}/version.py"] = stated.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_STORED
    ) as archive:  # stored: unpacking would cost start time
        for name, content in sorted(members.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return SHEBANG + buffer.getvalue()
