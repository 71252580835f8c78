"""Whether a bundle was made of the tree that was reviewed: of each of its files, byte by byte."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final

from mt5crs.review.model import ReviewError
from mt5crs.review.tree import Tree, contents
from mt5crs_release.bundle import MANIFEST, SIGNATURE, parse_manifest
from mt5crs_release.errors import ReleaseError

_OURS: Final = ("mt5crs/", "mt5crs_release/")
_OWN_WHEEL: Final = re.compile(r"wheels/mt5crs-[^/]+\.whl\Z")
_METADATA: Final = re.compile(r"mt5crs-[^/]+\.dist-info/[^/]+(/[^/]+)?\Z")
_NOTES: Final = frozenset(("requirements.txt", "sbom.cdx.json"))
_SHOWN: Final = 3


def content_of(bundle: Path, tree: Tree) -> str:
    """The content digest of a bundle that was made of this tree.

    :raises ReviewError: it is no bundle, is damaged, or holds what the tree does not
    """
    try:
        with tarfile.open(bundle, "r:") as archive:
            members = {
                member.name: file.read()
                for member in archive
                if (file := archive.extractfile(member)) is not None
            }
        manifest: dict[str, Any] = parse_manifest(members[MANIFEST], bundle)
        wrong = [
            name for name, digest in manifest["files"].items() if _sha256(members.get(name, b"")) != digest
        ]
        wrong += sorted(set(members) - {MANIFEST, SIGNATURE, *manifest["files"]})
        wrong += _differences({name: members[name] for name in manifest["files"] if name in members}, tree)
    except ReleaseError as error:
        raise ReviewError(f"{error.message}; {error.remedy}") from None
    except (OSError, tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
        raise ReviewError(f"{bundle} is no bundle ({error}); build it with `make bundle`") from None
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ReviewError(
            f"{bundle.name} was not made of the tree {tree.id[:12]}: {', '.join(wrong[:_SHOWN])}{more}; "
            "build it again with `make bundle`, or review the revision that it was made of (--revision)"
        )
    return str(manifest["content"])


def _differences(files: dict[str, bytes], tree: Tree) -> list[str]:
    """What is in the bundle and not in the tree, or the other way round."""
    if "uv.lock" not in tree.files:
        return ["uv.lock is not in the tree"]
    lock = contents(tree, ["uv.lock"])["uv.lock"].decode(errors="replace")
    own = [name for name in files if _OWN_WHEEL.match(name)]
    if len(own) != 1:
        return [f"{len(own)} wheels of our own"]
    foreign = set(files) - {*own, *_NOTES}
    # Its requirements are installed by hash, of wheels that are in the bundle: they can name nothing else.
    wrong = [name for name in sorted(foreign) if f"sha256:{_sha256(files[name])}" not in lock]
    return wrong + _of_our_wheel(files[own[0]], tree)


def _of_our_wheel(wheel: bytes, tree: Tree) -> list[str]:
    ours = [path for path in tree.files if path.startswith(tuple(f"src/{each}" for each in _OURS))]
    wanted = {path.removeprefix("src/"): content for path, content in contents(tree, ours).items()}
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        packed = {name: archive.read(name) for name in names}
    wrong = [name for name in packed if name not in wanted and not _METADATA.match(name)]
    wrong += [name for name in wanted if packed.get(name) != wanted[name]]
    return sorted(set(wrong) | {name for name in names if names.count(name) > 1})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
