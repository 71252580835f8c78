"""The record of a stage: what was run on which commit, what came of it, what it made.

Signed, so that it is known whose word it is.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from deploy.bundle.signing import allowed_signers_line, public_key, sign, signing_key
from mt5crs_release.bundles.bundle import verify_signature
from mt5crs_release.errors import ReleaseError
from pipeline.errors import PipelineError

DIRECTORY: Final = Path("reports/pipeline")
NAMESPACE: Final = "mt5crs-pipeline"
FORMAT: Final = 1

Outcome = Literal["passed", "not checked", "failed"]
"""`not checked`: nothing is known to be wrong, and something could not be looked at."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a stage; `log` is the name of what it printed, beside the record."""

    name: str
    command: list[str]
    outcome: Outcome
    status: int
    seconds: float
    log: str
    detail: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stage did."""

    format: int = FORMAT
    stage: str
    commit: str
    tree: str
    began: str
    """UTC, RFC 3339."""
    seconds: float
    outcome: Outcome
    steps: list[Step]
    tools: dict[str, str]
    """Program or package: version."""
    made: dict[str, str] = {}
    """File below the project: SHA-256."""
    figures: dict[str, Any] = {}
    before: dict[str, str] = {}
    """Stage: SHA-256 of its record, as it was when this one began."""

    @property
    def unchecked(self) -> list[str]:
        """What its steps could not look at."""
        return [step.detail or step.name for step in self.steps if step.outcome == "not checked"]


def encode(record: Record) -> bytes:
    """The bytes that are signed."""
    return msgspec.json.format(msgspec.json.encode(record, order="sorted")) + b"\n"


def digest(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def path_of(root: Path, stage: str) -> Path:
    """Where the record of a stage is kept."""
    return root / DIRECTORY / f"{stage}.json"


def write(record: Record, root: Path) -> Path:
    """Sign and keep a record; return its path. The record comes last: one without its signature is none.

    SigningError, OSError.
    """
    path, content = path_of(root, record.stage), encode(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    signature = sign(content, signing_key(root), NAMESPACE)
    _whole(_signature(path), signature)
    _whole(path, content)
    return path


def forget(stage: str, root: Path) -> None:
    """Remove the record of a stage that begins again: it is not known any more how that ends."""
    path_of(root, stage).unlink(missing_ok=True)


def read(stage: str, root: Path) -> tuple[Record, str] | None:
    """Return the record of a stage and its SHA-256; None when there is none.

    PipelineError when it is damaged, or not signed with this project's release key.
    """
    path = path_of(root, stage)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    again = f"`make pipeline-{stage}` makes it anew"
    try:
        signature = _signature(path).read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"the record of {stage} ({path}) is not signed: {again}") from None
    with tempfile.TemporaryDirectory(prefix="mt5crs-pipeline-") as scratch:
        signers = Path(scratch) / "allowed_signers"
        signers.write_text(allowed_signers_line(public_key(signing_key(root)), NAMESPACE))
        try:
            verify_signature(content, signature, signers, path.name, namespace=NAMESPACE)
        except ReleaseError as error:
            raise PipelineError(f"the record of {stage}: {error.message}: {again}") from None
    try:
        found = msgspec.json.decode(content, type=Record)
    except msgspec.DecodeError as error:
        raise PipelineError(f"the record of {stage} cannot be read ({error}): {again}") from None
    return found, digest(content)


def _signature(path: Path) -> Path:
    return path.with_name(f"{path.name}.sig")


def _whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
