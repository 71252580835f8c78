"""`make scan`: every scan, one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.review.model import ReviewError
from pipeline import built
from pipeline.errors import PipelineError
from pipeline.scans import advisories, debian, licences, programs, secrets
from pipeline.scans.model import AcceptanceError, Scan, acceptances, status, table, with_acceptances
from pipeline.stages import UNCHECKED

ACCEPTED: Final = Path("pipeline/accepted.toml")
MIRROR: Final = "LAB_DEBIAN_MIRROR"


def run(root: Path, what: Sequence[str], out: Path | None, say: Callable[[str], None]) -> int:
    """Run the scans of the sources, of what was built, or both; return the exit status (`model.status`).

    PipelineError: the list of accepted findings is wrong, or git cannot be asked.
    """
    path = root / ACCEPTED
    try:
        listed = acceptances(path.read_text() if path.is_file() else "", datetime.now(timezone.utc).date())
        made: list[Scan] = []
        if "sources" in what:
            made += [programs.scan(root), secrets.history(root), advisories.scan(root)]
        if "built" in what:
            made += _built(root)
    except (AcceptanceError, ReviewError) as error:
        raise PipelineError(str(error)) from None
    scans = [with_acceptances(each, listed) for each in made]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        told = [{**msgspec.to_builtins(each), "state": each.state, "detail": each.detail} for each in scans]
        out.write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    for line in table(scans):
        say(line)
    return status(scans, UNCHECKED)


def _built(root: Path) -> list[Scan]:
    try:
        files = built.files(root)
    except PipelineError:
        files = []
    documents = list(licences.documents(files))
    archives = [path for path in files if "-images-" in path.name and path.suffix == ".tar"]
    return [
        licences.scan(documents),
        secrets.images(archives),
        debian.scan([document for _, document in documents], os.environ.get(MIRROR)),
    ]
