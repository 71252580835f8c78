"""Another password for an environment's vault, and for all else that its password opens.

How far a rotation has got is seen from the files alone, so it can be killed anywhere and calling it again
finishes it: `PASSWORD.new` is there from the first step until it takes `PASSWORD`'s place, `PASSWORD.old`
from then until everything was opened with the new one. Meanwhile whoever reads the password gets the one that
opens the vault (`read_password`).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from deploy.fleet.vault_password import (
    PROJECT,
    former_file,
    next_file,
    opens,
    password_file,
    vault_files,
    vault_lib,
)
from deploy.vaults import store, usage

_INLINE = re.compile(
    rb"^(?P<indent>[ \t]*)\$ANSIBLE_VAULT;[^\n]*\n(?:(?P=indent)[0-9a-fA-F]+[ \t]*(?:\n|\Z))+", re.MULTILINE
)


@dataclass(frozen=True)
class Rotated:
    """What was done. resumed: it had been begun before."""

    files: tuple[Path, ...]
    in_force: Path
    former: Path
    resumed: bool


def rotate(inventory: Path) -> Rotated:
    """Give the environment another password, or finish what was begun. VaultError, and what was is in force.

    The former one is kept in `former_file`, since backups of until now open with it alone.
    """
    path = _own_file(inventory)
    if not vault_files(inventory):
        raise store.VaultError(
            f"{inventory} has no vault yet; `mt5crs --inventory {inventory} secrets init` makes one"
        )
    following, old = next_file(path), path.with_name(f"{path.name}.old")
    files = _encrypted(usage.files_in(inventory).values())
    with contextlib.ExitStack() as held:
        for directory in sorted({each.parent for each in files} | {path.parent}):
            held.enter_context(store.locked(directory))
            if not os.access(directory, os.W_OK):
                raise store.VaultError(f"you cannot write in {directory}; nothing was changed")
        resumed = following.exists() or old.exists()
        if not old.exists() or following.exists():
            _swap(path, following, old, files, inventory)
        _verified(path, files)
        _archive(path, old)
    return Rotated(tuple(files), path, former_file(path), resumed)


def _own_file(inventory: Path) -> Path:
    """The file with the password, a plain one. VaultError."""
    path = password_file(inventory)
    if os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE") and os.access(path, os.X_OK):
        raise store.VaultError(
            f"{path} is a script that prints the password; put the new one where it has it from, and give "
            "it to the vault with `ansible-vault rekey --new-vault-password-file NEW VAULT`"
        )
    path = path.resolve()
    if not path.is_file():
        raise store.VaultError(
            f"no vault password for {inventory}: {path} does not exist; put it there from your safe (0600)"
        )
    return path


def _swap(path: Path, following: Path, old: Path, files: dict[Path, bytes], inventory: Path) -> None:
    password = _password_in(path)
    new = _password_in(following) if following.exists() else secrets.token_hex(32)
    for file, sealed in files.items():
        for part in _parts(file, sealed):
            if not opens(part, password) and not opens(part, new):
                raise store.VaultError(
                    f"{file} cannot be opened with the password in {path}; give it that password "
                    "(`ansible-vault rekey`), or put the right one there. Nothing was changed"
                )
    _nobody_elses(inventory, password, files)
    if not following.exists():
        store.replace(following, f"{new}\n".encode())
    for file, sealed in files.items():
        content = _rekeyed(sealed, password, new)
        if content != sealed:
            store.replace(file, content, file.stat().st_mode & 0o777)
    if not old.exists():
        store.replace(old, f"{password}\n".encode())
    try:
        os.replace(following, path)  # noqa: PTH105 -- tests stop here, as a dying process does
        store.sync_directory(path.parent)
    except OSError as error:
        raise store.VaultError(
            f"{path} cannot be replaced: {error.strerror}; the vault has the password in {following} by now, "
            "which is used meanwhile. Call this again"
        ) from None


def _verified(path: Path, files: Iterable[Path]) -> None:
    password = _password_in(path)
    for file in files:
        if not all(opens(part, password) for part in _parts(file, store.read(file))):
            raise store.VaultError(
                f"{file} does not open with the new password in {path}; the one before is still in "
                f"{path.name}.old beside it. Was it changed meanwhile?"
            )


def _archive(path: Path, old: Path) -> None:
    """Keep the former password for the backups that it opens; then nothing is left of the rotation."""
    if not old.exists():
        return
    former, password = former_file(path), _password_in(old)
    lines = store.read(former).decode().splitlines() if former.exists() else []
    if not any(line.partition(" ")[2] == password for line in lines):
        today = datetime.now(timezone.utc).date().isoformat()
        store.replace(former, "".join(f"{line}\n" for line in (f"{today} {password}", *lines)).encode())
    try:
        os.unlink(old)  # noqa: PTH108 -- tests stop here
    except OSError as error:
        raise store.VaultError(f"{old} cannot be removed: {error.strerror}; remove it yourself") from None


def _password_in(path: Path) -> str:
    password = store.read(path).decode("utf-8", errors="replace").strip()
    if not password:
        raise store.VaultError(f"{path} is empty; restore it from your safe. Nothing was changed")
    return password


def _encrypted(paths: Iterable[Path]) -> dict[Path, bytes]:
    """File → content, of those that hold something encrypted. VaultError when one cannot be read."""
    found = {path: store.read(path) for path in sorted(set(paths))}
    return {path: content for path, content in found.items() if store.MARK in content}


def _parts(path: Path, content: bytes) -> Iterator[bytes]:
    """Everything encrypted in a file: all of it, or single values. VaultError for another form."""
    if content.startswith(store.MARK):
        yield content
        return
    found = list(_INLINE.finditer(content))
    if len(found) != content.count(store.MARK):
        raise store.VaultError(
            f"{path} has an encrypted value that is not written as a block (`!vault |` and lines below it); "
            "move it into the vault with `secrets edit`. Nothing was changed"
        )
    for match in found:
        yield _unindented(match)


def _unindented(match: re.Match[bytes]) -> bytes:
    return b"\n".join(line.strip() for line in match[0].splitlines()) + b"\n"


def _rekeyed(content: bytes, password: str, new: str) -> bytes:
    """The same content under the new password; what has it already stays to the byte."""

    def one(sealed: bytes) -> bytes:
        if opens(sealed, new):
            return sealed
        label = sealed.partition(b"\n")[0].split(b";")[3:]
        plain = vault_lib(password).decrypt(sealed)
        return bytes(vault_lib(new).encrypt(plain, vault_id=label[0].decode().strip() if label else None))

    def inline(match: re.Match[bytes]) -> bytes:
        sealed = _unindented(match)
        made = one(sealed)
        if made == sealed:
            return match[0]
        end = b"\n" if match[0].endswith(b"\n") else b""
        return b"\n".join(match["indent"] + line for line in made.splitlines()) + end

    return one(content) if content.startswith(store.MARK) else _INLINE.sub(inline, content)


def _nobody_elses(inventory: Path, password: str, ours: Iterable[Path]) -> None:
    """VaultError when the password opens a vault of another environment, too."""
    mine = {path.resolve() for path in ours}
    for root in {PROJECT, inventory.resolve().parent}:
        for place in ("group_vars", "host_vars"):
            for path in sorted((root / place).rglob("*")):
                if path.is_file() and path.resolve() not in mine and not path.name.startswith("."):
                    with contextlib.suppress(OSError):
                        if opens(path.read_bytes(), password):
                            raise store.VaultError(
                                f"the password also opens {path}, which is another environment's; give that "
                                "one a password of its own first (`ansible-vault rekey`). Nothing was changed"
                            )
