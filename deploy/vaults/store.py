"""A vault as a file: opened, replaced in one durable step, and by one at a time.

What goes wrong is a `VaultError`: one sentence with cause and remedy, and the vault is as it was. No text of
a vault is in one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.fleet.vault_password import (
    VaultPasswordMissingError,
    missing,
    password_file,
    read_password,
    vault_files,
    vault_lib,
)

MARK = b"$ANSIBLE_VAULT"
_TEMPORARY = ".mt5crs-tmp"


class VaultError(RuntimeError):
    """The vault cannot be read or changed; the text names cause and remedy, and nothing was changed."""


@dataclass(frozen=True, repr=False)
class Vault:
    """An open vault. sealed: its bytes as they were read; text: what they hold."""

    path: Path
    password: str
    sealed: bytes
    text: str


def open_vault(inventory: Path) -> Vault:
    """The vault of an inventory's environment, with the password that opens it. VaultError."""
    if not inventory.is_file():
        raise VaultError(f"{inventory} does not exist; name an inventory such as inventory/staging.yml")
    there = vault_files(inventory)
    if not there:
        raise VaultError(
            f"{inventory} has no vault yet; `mt5crs --inventory {inventory} secrets init` makes one"
        )
    if len(there) > 1:
        raise VaultError(
            f"{inventory} has {len(there)} vaults, {' and '.join(map(str, there))}; make one of them "
            "(`ansible-vault edit FILE`), or change each with ansible-vault"
        )
    path = there[0]
    try:
        password = read_password(inventory)
    except VaultPasswordMissingError as error:
        place = password_file(inventory)
        raise VaultError(str(error) if place.exists() else _gone(inventory, path, place)) from None
    sealed = read(path)
    return Vault(path, password, sealed, opened(path, sealed, password, password_file(inventory)))


def _gone(inventory: Path, vault: Path, password: Path) -> str:
    """A vault without its password: a new one could not open it."""
    cause = missing(inventory, password).partition(";")[0]
    return f"{cause}; {vault} opens with that password alone: put it there from your safe (mode 0600)"


def read(path: Path) -> bytes:
    """The bytes of a file. VaultError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise VaultError(f"{path} cannot be read: {error.strerror}; it must be a file of yours") from None


def opened(path: Path, sealed: bytes, password: str, kept_in: Path) -> str:
    """What an encrypted file holds. VaultError when the password does not open it, or it is damaged."""
    from ansible.errors import AnsibleError

    if not sealed.startswith(MARK):
        raise VaultError(
            f"{path} is not encrypted: whoever reads it has every secret in it. `ansible-vault encrypt "
            f"{path}`, then replace what others may have read"
        )
    try:
        return bytes(vault_lib(password).decrypt(sealed)).decode("utf-8")
    except (AnsibleError, UnicodeDecodeError):
        raise VaultError(
            f"{path} cannot be opened with the password in {kept_in}: a wrong one, or the file is damaged. "
            "Put the right one there (mode 0600), or name its file in ANSIBLE_VAULT_PASSWORD_FILE; a damaged "
            "file comes back from git or a backup"
        ) from None


def seal(text: str, password: str) -> bytes:
    """Encrypt a text as ansible-vault does (AES-256)."""
    return bytes(vault_lib(password).encrypt(text.encode()))


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file in one durable step, never readable by more than `mode` allows. VaultError.

    The new content is on the disk before the old one goes; whatever fails, the old file is whole.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 -- tests stop here, as a dying process does
        temporary = None
        sync_directory(path.parent)
    except OSError as error:
        raise VaultError(_unwritten(path, error)) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk. OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritten(path: Path, error: OSError) -> str:
    remedies = {
        errno.ENOSPC: "make room on that disk, then try again",
        errno.EDQUOT: "make room within your quota, then try again",
        errno.EROFS: "that file system is mounted read-only",
    }
    remedy = remedies.get(error.errno or 0, f"you need the right to write in {path.parent}")
    return f"{path} cannot be written: {error.strerror}; {remedy}. It is as it was"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep others from changing what lies in a directory meanwhile; VaultError when one is at it.

    The lock is the process's: it ends with it, however that ends, and leaves no file. What a killed process
    was writing is removed.
    """
    import fcntl

    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise VaultError(f"{directory} cannot be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VaultError(
                f"somebody else is changing the secrets in {directory} (an editor that is still open?); "
                "nothing was changed, try again when they are done"
            ) from None
        for left in directory.glob(f".*{_TEMPORARY}"):
            with contextlib.suppress(OSError):
                left.unlink()
        yield
    finally:
        os.close(handle)
