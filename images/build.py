"""Makes the images: `dist/mt5crs-images-….tar`, its bill of materials and its signed provenance."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.bundle.archive import canonical
from deploy.bundle.build import KEPT, NAME, newest
from deploy.bundle.sbom import DebianPackage, bill_of_materials
from deploy.bundle.signing import allowed_signers_line, public_key, sign, signing_key
from deploy.bundle.wheelhouse import sha256
from deploy.fleet.rendering import TEMPLATES
from images import code, layer, root, selftest
from images.architecture import AMD64, ARCHITECTURES, Architecture, emulator_of, native
from images.errors import ImageError
from images.layout import Image, Origin, make_image, write_archive
from images.provenance import statement
from images.services import SERVICES, reference
from images.steps import monitoring
from mt5crs_release.bundles.bundle import Bundle
from mt5crs_release.bundles.provenance import SUFFIX
from mt5crs_release.desired.digest import SHORT

LATEST = "images.json"
"""In the output directory: what was built last, for amd64; others have a file beside it."""
READY = TEMPLATES / "monitoring/ready.py"
LARGEST = 10
"""So many of the largest files are shown."""
_TEMPORARY = ".tmp-images-"


@dataclass(frozen=True)
class Debian:
    """Debian's part of the images: the root that all share, its layer, one more for each package that is run.

    programs: a directory with the program of each such package. largest: the largest files of these.
    """

    directory: Path
    programs: dict[str, Path]
    packages: tuple[DebianPackage, ...]
    base: layer.Layer
    further: dict[str, layer.Layer]
    largest: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Built:
    """What a build has made: files in the output directory, images by name, the largest files in them."""

    archive: Path
    tag: str
    images: tuple[Image, ...]
    largest: tuple[tuple[int, str], ...]
    tried: tuple[str, ...]
    """What was run of images that are not this machine's."""


def allowed_signers(directory: Path, project: Path) -> Path:
    """Write the file that trusts this project's release key, and nobody else; return it."""
    path = directory / "allowed_signers"
    path.write_text(allowed_signers_line(public_key(signing_key(project))))
    return path


def build(
    out: Path, project: Path, mirror: str | None = None, architecture: Architecture | None = None
) -> Built:
    """Make images of the newest bundle in `out`, for this machine's architecture unless told otherwise.

    Everything is made in a directory of its own and moved when it is whole: an interrupted build leaves
    nothing that looks like images. ImageError, SigningError, RefusedError (of the bundle), OSError.
    """
    if os.geteuid() != 0:
        raise ImageError(
            "images are made by unpacking Debian packages as root: run the command again as root"
        )
    here = native()
    wanted = architecture or here
    entry = newest(out).get(wanted.wheels.name)
    if entry is None:
        command = f"python -m deploy.bundle --platform {wanted.wheels.name}"
        raise ImageError(
            f"there is no bundle for {wanted.machine} in {out}: run "
            f"`{'make bundle' if wanted.wheels.name == 'linux' else command}` first"
        )
    if wanted != here:
        emulator_of(wanted)
    source = out / entry["file"]
    cache = out / ".cache"
    cache.mkdir(exist_ok=True)
    with _alone(cache), tempfile.TemporaryDirectory(dir=cache, prefix=_TEMPORARY) as scratch:
        work = Path(scratch)
        builder = None if wanted == here else _builder(cache, work, mirror, here)
        debian = _debian(cache, work, mirror, wanted, builder)
        tree = (builder or work) / "tree"
        shutil.copytree(debian.directory, tree, symlinks=True)
        with Bundle(source, allowed_signers(work, project)) as bundle:
            manifest = bundle.manifest
            wheels = code.install(tree, bundle, wanted, builder)
        tried = selftest.run(tree, debian.programs, wanted) if builder else ()
        names = layer.entries(tree)
        own = layer.write_layer(tree, filter(code.is_own, names), code.owner, work / "own.tar.gz")
        built = int(datetime.fromisoformat(str(manifest["built"]).replace("Z", "+00:00")).timestamp())
        origin = Origin(manifest["version"], manifest["commit"], manifest["content"], built)
        tag = f"{origin.version}-{origin.content[:SHORT]}"
        images = tuple(
            make_image(
                each,
                reference(each.name, tag),
                origin,
                (debian.base, debian.further[each.package] if each.package else own),
                wanted.name,
            )
            for each in SERVICES
        )
        stem = f"{NAME}-images-{tag}-{wanted.name}"
        files = {
            f"{stem}.tar": work / "images.tar",
            f"{stem}.sbom.cdx.json": work / "sbom",
            f"{stem}{SUFFIX}": work / "provenance",
            f"{stem}{SUFFIX}.sig": work / "signature",
        }
        write_archive(work / "images.tar", images, built, wanted.name)
        (work / "sbom").write_bytes(
            bill_of_materials(f"{NAME}-images", origin.version, wheels, packages=debian.packages)
        )
        about = {name: sha256(path) for name, path in list(files.items())[:2]}
        made_of = (source, sha256(source))
        told = canonical(statement(about, images, origin, made_of, debian.packages, wanted.name))
        (work / "provenance").write_bytes(told)
        (work / "signature").write_bytes(sign(told, signing_key(project)))
        # The statement last: what it does not name yet is refused.
        for name, path in files.items():
            path.replace(out / name)
        archive = out / f"{stem}.tar"
        _remember(out, archive, tag, wanted)
        _forget_old(out, stem, wanted)
        largest = sorted((*layer.largest(tree, names), *debian.largest), reverse=True)[:LARGEST]
        return Built(archive, tag, images, tuple(largest), tried)


def latest(out: Path) -> tuple[Path, str]:
    """Return the images built last for this machine, and their tag. ImageError if there are none."""
    try:
        told = json.loads((out / _latest(native())).read_text())
        archive, tag = out / told["file"], str(told["tag"])
    except (OSError, ValueError, KeyError):
        archive, tag = out, ""
    if not archive.is_file():
        raise ImageError(f"there are no images in {out}: run `make images` first")
    return archive, tag


def _builder(cache: Path, work: Path, mirror: str | None, here: Architecture) -> Path:
    """Return a root of this machine's architecture in which others are made: its Python is theirs."""
    builder = work / "builder"
    shutil.copytree(_debian(cache, work, mirror, here).directory, builder, symlinks=True)
    return builder


def _debian(
    cache: Path, work: Path, mirror: str | None, architecture: Architecture, builder: Path | None = None
) -> Debian:
    """Return the Debian part, made at most once a day: Debian's corrections are to arrive."""
    today = datetime.now(timezone.utc).date().isoformat()
    argv = root.argv(Path("root"), mirror, architecture.name)
    recipe = repr((argv, [path.read_bytes() for path in _recipe()], today))
    begins = f"debian-root-{architecture.name}-"
    kept = cache / f"{begins}{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if not kept.is_dir():
        fresh = work / f"debian-{architecture.name}"
        fresh.mkdir()
        made = root.make((builder or fresh) / "root", mirror, architecture.name, builder)
        names = [name for name in layer.entries(made.directory) if not code.is_own(name)]
        trees = {"": (made.directory, names)}
        for package in monitoring.PACKAGES:
            tree = fresh / package
            monitoring.lay_out(made.added, made.described, package, tree, READY)
            trees[package] = (tree, layer.entries(tree))
        shutil.rmtree(made.added)
        with ThreadPoolExecutor() as pool:  # most of the time goes into compressing, beside Python
            layers = {
                package: pool.submit(_written, tree, names, fresh / f"{package or 'root'}.tar.gz")
                for package, (tree, names) in trees.items()
            }
        told = {package: each.result() for package, each in layers.items()}
        if builder:
            made.directory.rename(fresh / "root")
        (fresh / "packages.json").write_text(json.dumps([vars(each) for each in made.packages]))
        (fresh / "layers.json").write_text(json.dumps(told))
        others = tuple(f"debian-root-{name}-" for name in ARCHITECTURES if name != architecture.name)
        for older in cache.glob("debian-root-*"):
            if not older.name.startswith(others):
                shutil.rmtree(older)
        fresh.rename(kept)
    listed = json.loads((kept / "packages.json").read_text())
    told = json.loads((kept / "layers.json").read_text())
    read = {
        package: layer.Layer(kept / each["file"], each["digest"], each["plain"], each["size"])
        for package, each in told.items()
    }
    return Debian(
        kept / "root",
        {package: kept / package for package in monitoring.PACKAGES},
        tuple(DebianPackage(**each) for each in listed),
        read.pop(""),
        read,
        tuple((size, name) for package in read for size, name in told[package]["largest"]),
    )


def _written(tree: Path, names: list[str], target: Path) -> dict[str, Any]:
    made = layer.write_layer(tree, names, code.owner, target)
    told: dict[str, Any] = {
        "file": target.name,
        "digest": made.digest,
        "plain": made.plain,
        "size": made.size,
    }
    return told | {"largest": layer.largest(tree, names, LARGEST)}


def _recipe() -> list[Path]:
    """What decides on the Debian part."""
    here = Path(__file__).parent
    modules = (here / name for name in ("root.py", "layer.py", "services.py"))
    steps = sorted(path for path in (here / "steps").iterdir() if path.is_file())
    return [*modules, *steps, READY]


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Build one at a time, and remove what a build that was killed has left."""
    with (cache / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftovers in cache.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftovers)
        yield


def _latest(architecture: Architecture) -> str:
    return LATEST if architecture == AMD64 else LATEST.replace(".", f"-{architecture.name}.")


def _remember(out: Path, archive: Path, tag: str, architecture: Architecture) -> None:
    name = _latest(architecture)
    temporary = out / f".{name}"
    temporary.write_bytes(canonical({"file": archive.name, "tag": tag}))
    temporary.replace(out / name)


def _forget_old(out: Path, stem: str, architecture: Architecture) -> None:
    """Remove all but the newest few builds."""
    stems = {
        path.name.removesuffix(".tar"): path.stat().st_mtime
        for path in out.glob(f"{NAME}-images-*-{architecture.name}.tar")
        if path.name != f"{stem}.tar"
    }
    for old in sorted(stems, key=lambda name: stems[name])[: -(KEPT - 1)]:
        for path in out.glob(f"{old}.*"):
            path.unlink()
