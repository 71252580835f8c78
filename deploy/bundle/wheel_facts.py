"""What a wheel says of itself and carries along: its licence, and libraries that are not Python's."""

from __future__ import annotations

import email.parser
import hashlib
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

_LIBRARY = re.compile(
    r"(?:^|/)(lib[a-z0-9_+]+|msvcp\d+|vcruntime\d+|concrt\d+)[^/]*(?:\.so[.\d]*|\.dll|\.dylib)$"
)
"""Libraries by the names that auditwheel and its like give their copies (<name>-<hash>.so.<version>)."""
_CLASSIFIER = "License :: OSI Approved :: "
UNKNOWN = "NOASSERTION"


@dataclass(frozen=True)
class WheelFacts:
    """`licence`: an SPDX expression, or the wheel's own words; `libraries`: file in the wheel → SHA-256."""

    digest: str
    licence: str = UNKNOWN
    libraries: dict[str, str] = field(default_factory=dict)


def facts_of(path: Path) -> WheelFacts:
    """Look into a wheel."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        about = next((name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)), None)
        licence = _licence(archive.read(about).decode(errors="replace")) if about else UNKNOWN
        libraries = {
            name: hashlib.sha256(archive.read(name)).hexdigest() for name in sorted(names) if library_in(name)
        }
    return WheelFacts(hashlib.sha256(path.read_bytes()).hexdigest(), licence, libraries)


def library_in(name: str) -> str | None:
    """The library that a file of a wheel is a copy of; None if it is none."""
    found = _LIBRARY.search(name.lower())
    return found[1] if found else None


def _licence(metadata: str) -> str:
    """PEP 639's expression; in older wheels the field or the classifiers that had its place."""
    message = email.parser.HeaderParser().parsestr(metadata)
    classifiers = [
        each.removeprefix(_CLASSIFIER)
        for each in message.get_all("Classifier", [])
        if each.startswith(_CLASSIFIER)
    ]
    stated = str(message.get("License") or "").strip().splitlines()[:1]
    return str(message.get("License-Expression") or ", ".join(classifiers or stated) or UNKNOWN)
