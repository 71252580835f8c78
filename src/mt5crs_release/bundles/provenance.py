"""`mt5crs-release verify`: is every byte of a release file as it was signed? Works without a network.

A bundle carries its signature. Images and their bill of materials are named, with their SHA-256, by a signed
statement beside them (in-toto, SLSA provenance). The key is that of bundles, in the same namespace: a
statement lacks what a bundle's manifest needs, and the other way round.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import tarfile
from pathlib import Path
from typing import IO, Any

from mt5crs_release.bundles.bundle import MANIFEST, SIGNATURE, Bundle, peek_manifest, verify_signature
from mt5crs_release.bundles.verdict import STATEMENT
from mt5crs_release.errors import RefusedError

PREDICATE = "https://slsa.dev/provenance/v1"
SUFFIX = ".provenance.json"
_BLOCK = 512
_RECORD = 10240
_MAX_STATEMENT = 4 * 1024 * 1024
_ARMOUR = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----")
_LINE = 70


def verify(path: Path, allowed_signers: Path, statement: Path | None = None) -> dict[str, Any]:
    """Check a bundle, images, a bill of materials or a statement; return what it is.

    statement: which one names `path`; by default one in its directory that does.

    :raises RefusedError: something differs from what was signed, or nothing signed names the file
    """
    if not path.is_file():
        raise RefusedError(
            f"{path} is no file", remedy="name a file that `make bundle` or `make images` made"
        )
    if not allowed_signers.is_file():
        raise RefusedError(
            f"{allowed_signers} does not exist, so no signature is trusted",
            remedy="name the file of trusted keys with --signers; on hosts the baseline installs it",
        )
    if path.name.endswith(SUFFIX):
        document = read_statement(path, allowed_signers)
        return {"file": path.name, "kind": "provenance", "subjects": sorted(_subjects(document))}
    if statement is None and peek_manifest(path) is not None:
        return _verify_bundle(path, allowed_signers)
    given = statement or _statement_for(path)
    wanted = _subjects(read_statement(given, allowed_signers)).get(path.name)
    if wanted is None:
        raise RefusedError(
            f"{given.name} says nothing about {path.name}", remedy="name its own statement with --provenance"
        )
    with path.open("rb") as file:
        found = _sha256(file)
    if found != wanted:
        raise RefusedError(
            f"{path.name} is not the file that was signed: SHA-256 {found}, {given.name} says {wanted}",
            remedy="it was damaged or tampered with: do not use it, fetch or build it again",
        )
    return {"file": path.name, "kind": "file", "sha256": found, "provenance": given.name}


def read_statement(path: Path, allowed_signers: Path) -> dict[str, Any]:
    """Return a statement whose signature (`<path>.sig`) is good.

    :raises RefusedError: it is not, or it is no statement
    """
    signature = path.with_name(f"{path.name}.sig")
    try:
        content, signed = _small(path), _small(signature)
    except OSError as error:
        raise RefusedError(
            f"{error.filename or path} cannot be read: {error.strerror}",
            remedy=f"keep {path.name} and {signature.name} beside each other",
        ) from None
    check_armour(signed, signature)
    verify_signature(content, signed, allowed_signers, path.name)
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if (
        not isinstance(document, dict)
        or document.get("_type") != STATEMENT
        or document.get("predicateType") != PREDICATE
        or not isinstance(document.get("subject"), list)
    ):
        raise RefusedError(
            f"{path.name} is signed, but is no statement of this form ({PREDICATE})",
            remedy="build the images again with this release's `make images`",
        )
    return document


def check_armour(signature: bytes, path: Path) -> None:
    """Check that a signature is written as ssh-keygen writes it: what it would overlook is a change as well.

    :raises RefusedError: it is not
    """
    lines = signature.decode("ascii", "replace").split("\n")
    try:
        raw = base64.b64decode("".join(lines[1:-2]), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    text = base64.b64encode(raw).decode()
    body = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    if not raw or "\n".join([_ARMOUR[0], *body, _ARMOUR[1], ""]).encode() != signature:
        raise RefusedError(
            f"{path.name} is no signature as ssh-keygen writes it",
            remedy="it was damaged or tampered with: do not use what it belongs to, fetch or build it again",
        )


def _verify_bundle(path: Path, allowed_signers: Path) -> dict[str, Any]:
    with Bundle(path, allowed_signers) as bundle, path.open("rb") as file:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = list(archive)
            for member in members:
                _check_member(archive, member, bundle, path)
        _check_wrapping(file, members, path)
        return {
            "file": path.name,
            "kind": f"{bundle.manifest.get('kind')} bundle",
            "content": bundle.content,
            "version": bundle.version,
            "commit": bundle.manifest.get("commit"),
        }


def _check_member(archive: tarfile.TarFile, member: tarfile.TarInfo, bundle: Bundle, path: Path) -> None:
    stream = archive.extractfile(member)
    if stream is None:
        raise _differs(path, member.name)
    if member.name == SIGNATURE:
        check_armour(stream.read(_MAX_STATEMENT), path)
    elif member.name != MANIFEST and _sha256(stream) != bundle.manifest["files"][member.name]:
        raise _differs(path, member.name)


def _check_wrapping(file: IO[bytes], members: list[tarfile.TarInfo], path: Path) -> None:
    """Check what lies around the members: headers as the build writes them, and zeros."""
    at = 0
    for member in members:
        entry = tarfile.TarInfo(member.name)
        entry.size, entry.mtime, entry.mode = member.size, members[0].mtime, 0o644
        file.seek(at)
        if file.read(_BLOCK) != entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"):
            raise _differs(path, f"the header of {member.name}")
        at += _BLOCK + member.size
        padding = -member.size % _BLOCK
        file.seek(at)
        if file.read(padding) != bytes(padding):
            raise _differs(path, f"what follows {member.name}")
        at += padding
    end = at + 2 * _BLOCK
    end += -end % _RECORD
    file.seek(at)
    if file.read(end - at + 1) != bytes(end - at):
        raise _differs(path, "its end")


def _differs(path: Path, what: str) -> RefusedError:
    return RefusedError(
        f"{path.name} is not the file that was signed: {what} differs",
        remedy="it was damaged or tampered with: do not use it, fetch or build it again",
    )


def _statement_for(path: Path) -> Path:
    for candidate in sorted(path.parent.glob(f"*{SUFFIX}")):
        try:
            if path.name in _subjects(json.loads(_small(candidate))):
                return candidate
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            continue
    raise RefusedError(
        f"nothing signed says what {path.name} has to be",
        remedy=f"put the {SUFFIX[1:]} of its build and its .sig beside it, or name it with --provenance",
    )


def _subjects(document: dict[str, Any]) -> dict[str, str]:
    """Return what a statement is about: name and SHA-256."""
    return {str(each["name"]): str(each["digest"]["sha256"]) for each in document["subject"]}


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_STATEMENT)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
