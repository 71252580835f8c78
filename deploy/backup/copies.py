"""A host's copy as it was backed up: encrypted with the environment's vault password, and read again.

What is kept is an ordinary file of ansible-vault (AES-256, with a check of its own), so that in an emergency
`ansible-vault decrypt` opens it without this program; inside is a tar.gz with a manifest.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from deploy.backup.on_host import MANIFEST
from deploy.fleet.vault_password import vault_lib


class CopyError(RuntimeError):
    """A copy is not what was backed up; the text says what is wrong."""


def sealed(content: bytes, password: str) -> bytes:
    """The copy, encrypted."""
    made: bytes = vault_lib(password).encrypt(content)
    return made


def opened(kept: bytes, password: str, digest: str, former: Iterable[str] = ()) -> bytes:
    """What `sealed` was given. digest: SHA-256 of `kept` as the metadata has it. Raises CopyError.

    former: passwords that the environment had when older copies were made
    """
    from ansible.errors import AnsibleError

    if hashlib.sha256(kept).hexdigest() != digest:
        raise CopyError("it is not the file that was backed up (its SHA-256 differs)")
    try:
        content: bytes = vault_lib(password, *former).decrypt(kept)
    except AnsibleError:
        raise CopyError("it cannot be decrypted: another vault password, or damaged") from None
    return content


def files_of(content: bytes) -> dict[str, bytes]:
    """Name → content of all that a copy holds, each checked against its manifest. Raises CopyError."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            found = {
                member.name: source.read()
                for member in archive.getmembers()
                if (source := archive.extractfile(member)) is not None
            }
        manifest = json.loads(found.pop(MANIFEST))
    except (OSError, tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise CopyError(f"it cannot be unpacked ({type(error).__name__})") from None
    if set(found) != set(manifest):
        missing = ", ".join(sorted(set(manifest) ^ set(found))[:3])
        raise CopyError(f"it holds other files than its manifest says ({missing})")
    for name, text in found.items():
        if hashlib.sha256(text).hexdigest() != manifest[name]:
            raise CopyError(f"{name} in it is damaged")
    return found


def restored(files: dict[str, bytes], scratch: Path) -> list[Path]:
    """Write all files below a scratch directory; gives the databases among them, each found intact.

    Raises CopyError.
    """
    databases = []
    for name, content in files.items():
        path = scratch / name
        if not path.resolve().is_relative_to(scratch.resolve()):
            raise CopyError(f"{name} would be written outside of the scratch directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if path.suffix == ".db":
            databases.append(path)
    for path in databases:
        try:
            with closing(sqlite3.connect(path)) as db:
                said = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            said = str(error)
        if said != "ok":
            raise CopyError(f"{path.relative_to(scratch)} is damaged: {said}")
    return databases
