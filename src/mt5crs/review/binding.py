"""Whether a bundle was made of the tree that was reviewed: of each of its files, byte by byte."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from mt5crs.review import strategy_sources
from mt5crs.review.model import ReviewError
from mt5crs.review.tree import Tree, contents
from mt5crs_release.bundles.bundle import CORE, MANIFEST, SIGNATURE, STRATEGY, parse_manifest
from mt5crs_release.errors import ReleaseError

_OURS: Final = ("mt5crs/", "mt5crs_release/")
_OWN_WHEEL: Final = re.compile(r"wheels/mt5crs-[^/]+\.whl\Z")
_NOTES: Final = frozenset(("requirements.txt", "sbom.cdx.json"))
_SHOWN: Final = 3


def bundles_of(named: Iterable[Path]) -> list[Path]:
    """The bundles that are named, by their own file or by the document that building them wrote.

    :raises ReviewError: such a document is none
    """
    found: list[Path] = []
    for path in named:
        if path.suffix != ".json":
            found.append(path)
            continue
        try:
            document = json.loads(path.read_bytes())
            entries = document["bundles"].values() if "bundles" in document else [document]
            found += [path.parent / entry["file"] for entry in entries]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReviewError(
                f"{path} does not say which bundles were built ({error}); build them with `make bundle` or "
                "`make strategy-bundle`"
            ) from None
    return found


def content_of(bundle: Path, tree: Tree) -> str:
    """The content digest of a bundle file that was made of this tree; otherwise as :func:`content_in`."""
    try:
        with bundle.open("rb") as file:
            return content_in(file, bundle, tree)
    except OSError as error:
        raise ReviewError(f"{bundle} is no bundle ({error}); build it with `make bundle`") from None


def content_in(stream: IO[bytes], bundle: Path, tree: Tree) -> str:
    """The content digest of a bundle that was made of this tree; `bundle` is what it is called.

    :raises ReviewError: it is no bundle, is damaged, or holds what the tree does not
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
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
        files = {name: members[name] for name in manifest["files"] if name in members}
        if manifest.get("kind", CORE) == STRATEGY:
            wrong += _other_than_the_strategy(files, strategy_sources.read(tree, str(manifest["name"])))
        else:
            wrong += _other_than_the_core(files, tree)
    except ReleaseError as error:
        raise ReviewError(f"{error.message}; {error.remedy}") from None
    except (OSError, tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
        raise ReviewError(f"{bundle} is no bundle ({error}); build it with `make bundle`") from None
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ReviewError(
            f"{bundle.name} was not made of the tree {tree.id[:12]}: {', '.join(wrong[:_SHOWN])}{more}; "
            "build it again, or review the revision that it was made of (--revision)"
        )
    return str(manifest["content"])


def _other_than_the_core(files: Mapping[str, bytes], tree: Tree) -> list[str]:
    """What is in the bundle and not in the tree, or the other way round."""
    if "uv.lock" not in tree.files:
        return ["uv.lock is not in the tree"]
    lock = contents(tree, ["uv.lock"])["uv.lock"].decode(errors="replace")
    own = [name for name in files if _OWN_WHEEL.match(name)]
    if len(own) != 1:
        return [f"{len(own)} wheels of our own"]
    # Its requirements are installed by hash, of wheels that are in the bundle: they can name nothing else.
    wrong = _not_locked(files, set(files) - {*own, *_NOTES}, lock)
    ours = [path for path in tree.files if path.startswith(tuple(f"src/{each}" for each in _OURS))]
    wanted = {path.removeprefix("src/"): content for path, content in contents(tree, ours).items()}
    packed, twice = _packed(own[0], files[own[0]])
    wrong += [name for name in packed if name not in wanted]
    return wrong + sorted({name for name in wanted if packed.get(name) != wanted[name]} | twice)


def _other_than_the_strategy(files: Mapping[str, bytes], sources: strategy_sources.Sources) -> list[str]:
    """What is in a strategy's bundle, and in none of the files of the tree that its definition names."""
    wrong: list[str] = []
    unknown: list[str] = []
    for name, content in files.items():
        if name in sources.data:
            wrong += [] if sources.data[name] == content else [name]
        elif name not in _NOTES and content not in sources.wheels:
            unknown.append(name)
    built = [name for name in _not_locked(files, unknown, sources.lock) if name.endswith(".whl")]
    wrong += sorted(set(_not_locked(files, unknown, sources.lock)) - set(built))
    for name in built:
        packed, twice = _packed(name, files[name])
        wrong += sorted(twice) + [
            f"{name}: {inside}" for inside, content in packed.items() if not sources.has(inside, content)
        ]
    return wrong


def _not_locked(files: Mapping[str, bytes], names: Collection[str], lock: str) -> list[str]:
    return [name for name in sorted(names) if f"sha256:{_sha256(files[name])}" not in lock]


def _packed(name: str, wheel: bytes) -> tuple[dict[str, bytes], set[str]]:
    """The files of a wheel without what building it adds, and the names that stand in it more than once."""
    added = "-".join(name.removeprefix("wheels/").split("-")[:2]) + ".dist-info/"
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        packed = {name: archive.read(name) for name in names if not name.startswith(added)}
        return packed, {name for name in names if names.count(name) > 1}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
