"""The newest bundle, made another one: signed by somebody else, or with one more dependency."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from deploy.bundle.archive import canonical, digest_of, pack, write_file
from deploy.bundle.build import newest
from deploy.bundle.signing import public_key, sign, signing_key
from deploy.controller.programs import require
from lab.state import PROJECT, LabDirectory
from mt5crs_release.bundles.bundle import MANIFEST, SIGNATURE
from mt5crs_release.desired.digest import content_digest

DEPENDENCY = "mt5crs-lab-dependency"
_PACKAGE = DEPENDENCY.replace("-", "_")
_VERSION = "1.0"
_PINS = "requirements.txt"


def other_signer(directory: LabDirectory) -> Path:
    """A key of a lab's own that signs bundles; made when there is none."""
    key = directory.root / "other_signer_ed25519"
    if not key.is_file():
        command = [require("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    return key


def other_signer_public(directory: LabDirectory) -> str:
    """Its public half, for `baseline_release_signers`."""
    return public_key(other_signer(directory))


def signed_by_the_other(directory: LabDirectory) -> str:
    """Where that bundle is, as `fleet_bundle` has it."""
    return str(directory.root / "signed-by-another.tar")


def with_a_dependency(directory: LabDirectory) -> str:
    """Where that bundle is, as `fleet_bundle` has it."""
    return str(directory.root / "with-a-dependency.tar")


def make_signed_by_the_other(directory: LabDirectory) -> None:
    """Write the newest bundle, the same in content, signed by the other key."""
    _write(Path(signed_by_the_other(directory)), _newest(), other_signer(directory))


def make_with_a_dependency(directory: LabDirectory) -> None:
    """Write the newest bundle with a wheel more, pinned like the others, signed as it was."""
    members = _newest()
    wheel = _wheel()
    file = f"wheels/{_PACKAGE}-{_VERSION}-py3-none-any.whl"
    pin = f"{DEPENDENCY}=={_VERSION} --hash=sha256:{digest_of(wheel)}"
    members[file] = wheel
    members[_PINS] = ("\n".join(sorted([*members[_PINS].decode().splitlines(), pin])) + "\n").encode()
    manifest: dict[str, Any] = json.loads(members[MANIFEST])
    manifest["files"] |= {file: digest_of(wheel), _PINS: digest_of(members[_PINS])}
    manifest["content"] = content_digest(manifest["files"])
    members[MANIFEST] = canonical(manifest)
    _write(Path(with_a_dependency(directory)), members, signing_key(PROJECT))


def _newest() -> dict[str, bytes]:
    found = PROJECT / "dist" / newest(PROJECT / "dist")["linux"]["file"]
    with tarfile.open(found) as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in members.items() if file is not None}


def _write(path: Path, members: dict[str, bytes], key: Path) -> None:
    members[SIGNATURE] = sign(members[MANIFEST], key)
    write_file(path, pack(members, 315532800), 0o644)


def _wheel() -> bytes:
    about = f"{_PACKAGE}-{_VERSION}.dist-info"
    files = {
        f"{_PACKAGE}.py": f'"""Nothing."""\n\nVERSION = "{_VERSION}"\n',
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {DEPENDENCY}\nVersion: {_VERSION}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()
