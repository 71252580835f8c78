"""Licences of what is shipped, by the bills of materials: each has to be one of a list."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pipeline.scans.model import Found, Scan

NAME: Final = "licences"
ALLOWED: Final = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0", "Zlib"),
        "MPL-2.0",  # libzmq, certifi: changes to its own files have to be shown, and there are none
    )
)
WORDS: Final = frozenset(
    (
        *("Apache Software License", "BSD License", "ISC License (ISCL)", "MIT License"),
        *("Mozilla Public License 2.0 (MPL 2.0)", "Python Software Foundation License"),
    )
)
"""As classifiers have them, where a package states no expression; all that one can mean is allowed."""
DEBIAN: Final = "Debian main"
"""Of a Debian package the bill says no licence; images take packages of Debian's section main alone."""
_WORD: Final = re.compile(r"\(|\)|[^\s()]+")
SBOM_IN_BUNDLE: Final = "sbom.cdx.json"


def scan(documents: Iterable[tuple[str, dict[str, Any]]]) -> Scan:
    """Look at every component of bills of materials (CycloneDX), named by their files."""
    looked, found, missing = set[str](), dict[str, Found](), ""
    for name, document in documents:
        for component in _components(document):
            which = f"{component['name']} {component.get('version', '')}".strip()
            told = licence(component)
            if told is None and component.get("type") == "file":
                continue  # a file of a package: the package's licence
            looked.add(which)
            if told != DEBIAN and not allowed(told or ""):
                found[which] = Found(key=which, detail=f"{told or 'no licence'}, in {name}")
    if not looked:
        missing = "there is no bill of materials in dist/; `make bundle` and `make images` make them"
    return Scan(
        name=NAME, looked_at=len(looked), what="components", found=list(found.values()), not_checked=missing
    )


def licence(component: dict[str, Any]) -> str | None:
    """The licence that a bill states: an SPDX expression, other words, or DEBIAN; None: it states none."""
    if str(component.get("purl", "")).startswith("pkg:deb/debian/"):
        return DEBIAN
    told = []
    for each in component.get("licenses", []):
        of = each.get("license", {})
        told.append(str(each.get("expression") or of.get("id") or of.get("name") or ""))
    # All of them count; a name that is no expression stays as it is, and alone.
    return told[0] if len(told) == 1 else " AND ".join(f"({each})" for each in told) or None


def allowed(expression: str) -> bool:
    """Whether an SPDX expression (or one of WORDS) can be met with allowed licences: `OR` is our choice."""
    if expression in WORDS:
        return True
    words = _WORD.findall(expression)
    try:
        good, rest = _either(words)
    except IndexError:
        return False
    return good and not rest


def _either(words: list[str]) -> tuple[bool, list[str]]:
    good, rest = _both(words)
    while rest[:1] == ["OR"]:
        other, rest = _both(rest[1:])
        good = good or other
    return good, rest


def _both(words: list[str]) -> tuple[bool, list[str]]:
    good, rest = _one(words)
    while rest[:1] == ["AND"]:
        other, rest = _one(rest[1:])
        good = good and other
    return good, rest


def _one(words: list[str]) -> tuple[bool, list[str]]:
    first, rest = words[0], words[1:]
    if first == "(":
        good, rest = _either(rest)
        return (good, rest[1:]) if rest[0] == ")" else (False, rest)
    if rest[:1] == ["WITH"]:
        rest = rest[2:]  # an exception only permits more
    return first in ALLOWED, rest


def documents(files: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The bills of materials among built files, those inside of bundles too."""
    for path in files:
        if path.name.endswith(".sbom.cdx.json"):
            yield path.name, json.loads(path.read_bytes())
        elif path.suffix == ".tar":
            with tarfile.open(path) as archive:
                if SBOM_IN_BUNDLE in archive.getnames():
                    member = archive.extractfile(SBOM_IN_BUNDLE)
                    if member is not None:
                        yield f"{path.name}/{SBOM_IN_BUNDLE}", json.loads(member.read())


def _components(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for component in document.get("components", []):
        yield component
        yield from _components(component)
