"""Reading a bundle: the signature is checked before a single member is unpacked, then every hash."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mt5crs_release.desired.digest import content_digest, parts_of
from mt5crs_release.errors import FailedError, RefusedError

FORMAT = 1
PRINCIPAL = "mt5crs-release"
NAMESPACE = "mt5crs-bundle"
CORE = "core"
STRATEGY = "strategy"
"""Kinds of bundles: ours, and one of a strategy that is installed with it."""
DATA = "data/"
"""In a strategy's bundle: where the files lie that are no code."""
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"

_MAX_MANIFEST = 1024 * 1024
SAFE_PATH = re.compile(r"(?!\.)[A-Za-z0-9._+!-]+(/(?!\.)[A-Za-z0-9._+!-]+)*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NOTHING = "nothing was changed"
_BUILT_BY = {CORE: "make bundle", STRATEGY: "make strategy-bundle NAME=…"}


class Bundle:
    """A bundle whose signature and manifest have been verified; use as a context manager."""

    def __init__(self, path: Path, allowed_signers: Path) -> None:
        """Open and verify ``path``; members are read later from the same open file.

        :raises RefusedError: not a bundle, not signed by an allowed key, damaged, or for another platform
        """
        self.path = path
        try:
            self._file = _open(path)
        except OSError as error:
            raise RefusedError(
                f"the bundle {path} cannot be opened: {error.strerror}",
                remedy="upload it first (the deployment does), or name an existing file",
            ) from None
        try:
            self._members = _members(self._file, path)
            manifest = self._read_small(MANIFEST)
            verify_signature(manifest, self._read_small(SIGNATURE), allowed_signers, path.name)
            self.manifest = parse_manifest(manifest, path)
            self._check_members()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def content(self) -> str:
        """The content digest, bound by the signature."""
        return str(self.manifest["content"])

    @property
    def code(self) -> str | None:
        """Digest of a strategy bundle's wheels and pins; ``None`` when it brings none."""
        return parts_of(self.manifest["files"], DATA)[0]

    @property
    def data(self) -> str | None:
        """Digest of a strategy bundle's data; ``None`` when it brings none."""
        return parts_of(self.manifest["files"], DATA)[1]

    @property
    def version(self) -> str:
        """The version of what the bundle is named after."""
        return str(self.manifest["version"])

    @property
    def protocol(self) -> dict[str, int] | None:
        """The protocol versions that our own package understands, least and most."""
        told: dict[str, int] | None = self.manifest.get("protocol")
        return told

    def check_kind(self, wanted: str) -> None:
        """Check that it is a bundle of this kind.

        :raises RefusedError: it is of another
        """
        kind = self.manifest.get("kind", CORE)
        if kind != wanted:
            raise RefusedError(
                f"{self.path.name} is a {kind} bundle, wanted is a {wanted} bundle",
                remedy=f"name the file that `{_BUILT_BY[wanted]}` made; {_NOTHING}",
            )

    def check_platform(self) -> None:
        """Check that the bundle is for this machine and this Python.

        :raises RefusedError: it is not
        """
        here, python = this_platform(), this_python()
        if here not in self.manifest["platforms"]:
            raise RefusedError(
                f"{self.path.name} is for {', '.join(self.manifest['platforms'])}, this host is {here}",
                remedy=f"build a bundle for {here}; {_NOTHING}",
            )
        if python not in self.manifest["pythons"]:
            raise RefusedError(
                f"{self.path.name} is for {', '.join(self.manifest['pythons'])}, this host has {python}",
                remedy=f"add {python} to {self._pythons_in()} and build again; {_NOTHING}",
            )

    def unpack(self, directory: Path, *, data: bool = False) -> None:
        """Write every file below ``directory`` while checking its SHA-256: all code, or all data.

        :raises RefusedError: a file differs from the signed manifest
        """
        for name, wanted in self.manifest["files"].items():
            if name.startswith(DATA) != data:
                continue
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            member = self._members[name]
            digest = hashlib.sha256()
            self._file.seek(member.offset_data)
            left = member.size
            with target.open("xb") as stream:
                while left > 0:
                    block = self._file.read(min(left, 1 << 20))
                    if not block:
                        break
                    left -= len(block)
                    digest.update(block)
                    stream.write(block)
            if digest.hexdigest() != wanted:
                raise RefusedError(
                    f"{name} in the bundle {self.path.name} differs from the signed manifest",
                    remedy=f"the file was damaged or tampered with: build or upload it again; {_NOTHING}",
                )

    def _pythons_in(self) -> str:
        if self.manifest.get("kind", CORE) == STRATEGY:
            return f"`pythons` in strategies/{self.manifest.get('name')}.yml"
        return "the Pythons in deploy/bundle/wheelhouse.py"

    def _check_members(self) -> None:
        expected = {MANIFEST, SIGNATURE, *self.manifest["files"]}
        extra, missing = sorted(set(self._members) - expected), sorted(expected - set(self._members))
        if extra or missing:
            what = [f"{name!r} is not in the manifest" for name in extra]
            what += [f"{name!r} is missing" for name in missing]
            raise _damaged(self.path, "; ".join(what[:5]))

    def _read_small(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            hint = ": it is not signed" if name == SIGNATURE else ""
            raise _damaged(self.path, f"{name} is missing{hint}")
        if member.size > _MAX_MANIFEST:
            raise _damaged(self.path, f"{name} is larger than {_MAX_MANIFEST} bytes")
        self._file.seek(member.offset_data)
        return self._file.read(member.size)


def verify_signature(
    signed: bytes,
    signature: bytes,
    allowed_signers: Path,
    name: str,
    *,
    principal: str = PRINCIPAL,
    namespace: str = NAMESPACE,
    setting: str = "baseline_release_signers",
) -> None:
    """Check that an allowed key signed ``signed``, which is called ``name``.

    :raises RefusedError: no allowed signers on this host, or the signature is not theirs
    """
    if not allowed_signers.is_file():
        raise RefusedError(
            f"{allowed_signers} does not exist, so no bundle is trusted",
            remedy=f"run the baseline part of the deployment: it installs {setting}",
        )
    try:
        answer = _ask_ssh_keygen(signed, signature, allowed_signers, principal, namespace)
    except OSError as error:
        where = error.filename or tempfile.tempdir  # when no directory will do, the error lists them
        raise FailedError(
            f"no temporary file can be written{f' ({where})' if where else ''}: {error.strerror or error}",
            remedy=f"free space for temporary files on this host (`df /tmp /var/tmp`); {_NOTHING}",
        ) from None
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).decode(errors="replace").strip().splitlines()
        raise RefusedError(
            f"the signature of {name} is not valid: {said[-1] if said else 'no reason given'}",
            remedy=f"sign it with a key in {allowed_signers}, or add its key to {setting}; "
            f"if it came from elsewhere, do not use it; {_NOTHING}",
        )


def _ask_ssh_keygen(
    signed: bytes, signature: bytes, allowed_signers: Path, principal: str, namespace: str
) -> subprocess.CompletedProcess[bytes]:
    # A directory, not an open temporary file: on Windows nobody else can open that one.
    with tempfile.TemporaryDirectory(prefix="mt5crs-sig-") as directory:
        file = Path(directory) / SIGNATURE
        file.write_bytes(signature)
        command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed_signers)]
        command += ["-I", principal, "-n", namespace, "-s", str(file)]
        try:
            return subprocess.run(command, input=signed, capture_output=True, timeout=30, check=False)
        except FileNotFoundError:
            raise RefusedError(
                "ssh-keygen is not installed, so the signature of what is shipped cannot be checked",
                remedy="install the package openssh-client; nothing was changed",
            ) from None


def parse_manifest(content: bytes, path: Path) -> dict[str, Any]:
    """Return the manifest in ``content``.

    :raises RefusedError: it is not one, or does not fit itself
    """
    try:
        manifest = json.loads(content)
    except ValueError:
        raise _damaged(path, "manifest.json is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(path, f"its format is not {FORMAT}")
    files = manifest.get("files")
    if not isinstance(files, Mapping) or not all(
        SAFE_PATH.match(name) and isinstance(digest, str) and _SHA256.match(digest)
        for name, digest in files.items()
    ):
        raise _damaged(path, "its table of files holds an unsafe path or a malformed SHA-256")
    if manifest.get("content") != content_digest(files):
        raise _damaged(path, "its content digest does not fit its table of files")
    for key, kind in (("version", str), ("pythons", list), ("platforms", list)):
        if not isinstance(manifest.get(key), kind):
            raise _damaged(path, f"manifest.json lacks {key!r}")
    return manifest


def peek_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest in ``path``, unverified; ``None`` when it is not a bundle."""
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            member = archive.extractfile(MANIFEST)
            manifest = json.loads(member.read(_MAX_MANIFEST)) if member else None
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError):
        return None
    usable = isinstance(manifest, dict) and isinstance(manifest.get("content"), str)
    return manifest if usable else None


def peek_content(path: Path) -> str | None:
    """Return the content digest that ``path`` claims, unverified; ``None`` when it is not a bundle."""
    manifest = peek_manifest(path)
    return None if manifest is None else str(manifest["content"])


def this_python() -> str:
    """Return the tag of the running interpreter, for instance ``cp311``."""
    return f"cp{sys.version_info.major}{sys.version_info.minor}"


def this_platform() -> str:
    """Return the platform of this host, for instance ``linux-x86_64``."""
    system = "win" if os.name == "nt" else sys.platform
    return f"{system}-{platform.machine().lower().replace('amd64', 'x86_64')}"


def _open(path: Path) -> IO[bytes]:
    """Open a file that is one: a pipe or a device would be read for ever, or not even be opened.

    :raises OSError: it cannot be opened, or is no regular file
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(descriptor, "rb")


def _members(file: IO[bytes], path: Path) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if not member.isreg():
                    raise _damaged(path, f"{member.name!r} is not a regular file")
                if not SAFE_PATH.match(member.name):
                    raise _damaged(path, f"{member.name!r} is not a safe path")
                if member.name in members:
                    raise _damaged(path, f"{member.name!r} is in it twice")
                members[member.name] = member
    except tarfile.TarError as error:
        raise _damaged(path, f"not a tar file ({error})") from None
    return members


def _damaged(path: Path, why: str) -> RefusedError:
    return RefusedError(
        f"{path.name} is not a valid bundle: {why}",
        remedy=f"build it again with `make bundle` and upload it; {_NOTHING}",
    )
