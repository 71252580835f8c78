"""What the stage build leaves in `dist/`: which files, and whether each is as it was signed."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Final

from deploy.bundle.build import LATEST, TOOL, newest
from images import build as images
from images.errors import ImageError
from mt5crs_release.bundles.provenance import SUFFIX, verify
from mt5crs_release.errors import ReleaseError
from pipeline.errors import PipelineError

OUT: Final = "dist"


def files(root: Path) -> list[Path]:
    """The newest bundle of each platform, the release tool, the newest images with what belongs to them.

    PipelineError when there is no bundle.
    """
    out = root / OUT
    bundles = [out / entry["file"] for entry in newest(out).values()]
    if not bundles:
        raise PipelineError(f"there is no bundle in {out}: run `make bundle`")
    try:
        archive, _ = images.latest(out)
    except ImageError:
        beside = []
    else:
        beside = sorted(path for path in out.glob(f"{archive.stem.rpartition('-')[0]}-*") if path.is_file())
    return sorted({*bundles, out / TOOL, out / LATEST, *beside})


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file, by its name below the project. OSError when one has gone meanwhile."""
    return {path.relative_to(root).as_posix(): digest_of(path) for path in files(root)}


def digest_of(path: Path) -> str:
    """SHA-256 of a file, which is read in parts. OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(root: Path) -> list[str]:
    """Verify every signed file with the host tool's own code; return what was found of each.

    PipelineError names the first that is not as it was signed.
    """
    told = []
    with tempfile.TemporaryDirectory(prefix="mt5crs-pipeline-") as scratch:
        signers = images.allowed_signers(Path(scratch), root)
        for path in files(root):
            if path.name in (TOOL, LATEST) or path.suffix == ".sig":
                continue
            try:
                kind = verify(path, signers)["kind"]
            except ReleaseError as error:
                raise PipelineError(f"{error.message}: {error.remedy}") from None
            told.append(f"{path.name}: {kind}, as it was signed")
    if not any(name.split(":")[0].endswith(SUFFIX) for name in told):
        raise PipelineError(f"no provenance of images is in {root / OUT}: run `make images`")
    return told
