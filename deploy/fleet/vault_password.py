#!/usr/bin/env python3
"""Prints the vault password of the environment Ansible is being run for (ansible.cfg names this file).

Which environment: the `-i`/`--inventory` of the ansible command that started this, ANSIBLE_INVENTORY, for
ansible-vault (which takes no `-i`) the `group_vars/<environment>/` of its files, and for what only reads the
default lab.
Where the password is: see `password_file`. Set ANSIBLE_VAULT_PASSWORD_FILE to use another file or script.
Only the standard library is imported: it runs before every ansible command.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import itertools
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_INVENTORY = PROJECT / "inventory" / "lab.yml"


class VaultPasswordMissingError(RuntimeError):
    """No readable password file for an environment; the text says which file to create."""


def environment_of(inventory: Path) -> str:
    """Environment an inventory file describes.

    What the file itself says with `fleet_environment`, once and in plain words; else its name. It is needed
    before variables are read, since it says which vault to open. `lab` for the inventories of further labs.
    """
    if ".lab" in inventory.resolve().parts:
        return "lab"
    try:
        said = set(_SAID.findall(inventory.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        said = set()
    return said.pop() if len(said) == 1 else inventory.stem


_SAID = re.compile(r"""^[^#\n]*?\bfleet_environment["']?\s*:\s*["']?([\w.-]+)""", re.MULTILINE)


def password_file(inventory: Path) -> Path:
    """Where the vault password for this inventory lies.

    ANSIBLE_VAULT_PASSWORD_FILE if set; for a lab `.lab/<name>/vault-password` (made by the lab); otherwise
    `vault-password-<environment>` in $XDG_CONFIG_HOME/mt5crs (or ~/.config/mt5crs).
    """
    chosen = os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE")
    if chosen:
        return Path(chosen).expanduser()
    inventory, environment = inventory.resolve(), environment_of(inventory)
    if ".lab" in inventory.parts:
        return inventory.parent / "vault-password"
    if environment == "lab":
        return PROJECT / ".lab" / "default" / "vault-password"
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return base / "mt5crs" / f"vault-password-{environment}"


def vault_lib(password: str, *more: str) -> Any:
    """Ansible's own encryption (`VaultLib`) with a password; `more` open as well, and encrypt nothing."""
    from ansible.constants import DEFAULT_VAULT_IDENTITY
    from ansible.parsing.vault import VaultLib, VaultSecret

    return VaultLib([(DEFAULT_VAULT_IDENTITY, VaultSecret(each.encode())) for each in (password, *more)])


def next_file(path: Path) -> Path:
    """Where the new password is while `secrets rotate vault` is at it; beside the one in force."""
    return path.with_name(f"{path.name}.new")


def former_file(path: Path) -> Path:
    """Where the passwords before are, newest first: backups of then open with them alone."""
    return path.with_name(f"{path.name}.former")


def former_passwords(inventory: Path) -> list[str]:
    """Passwords that this environment had before, newest first; none when there is no such file."""
    try:
        lines = former_file(password_file(inventory)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.partition(" ")[2].strip() for line in lines if " " in line]


def opens(sealed: bytes, password: str) -> bool:
    """Whether a password opens what ansible-vault has encrypted, by its own check (HMAC-SHA256)."""
    try:
        header, _, body = sealed.partition(b"\n")
        salt, digest, content = binascii.unhexlify(b"".join(body.split())).split(b"\n", 2)
        keys = hashlib.pbkdf2_hmac("sha256", password.encode(), binascii.unhexlify(salt), 10_000, 80)
        found = hmac.new(keys[32:64], binascii.unhexlify(content), hashlib.sha256).digest()
        fits = hmac.compare_digest(found, binascii.unhexlify(digest))
    except ValueError:
        return False
    return fits and header.startswith(b"$ANSIBLE_VAULT;")


def vault_files(inventory: Path) -> list[Path]:
    """The vaults that exist for this inventory."""
    environment = environment_of(inventory)
    places = {inventory.resolve().parent / "group_vars", PROJECT / "group_vars"}
    return sorted(vault for place in places if (vault := place / environment / "vault.yml").exists())


def missing(inventory: Path, path: Path) -> str:
    """Sentence for a password that is not there: cause and remedy."""
    if environment_of(inventory) == "lab":
        remedy = "start the lab (`.venv/bin/python -m lab up`), which makes it"
    else:
        remedy = (
            "put the password there (mode 0600), or name its place in ANSIBLE_VAULT_PASSWORD_FILE; for a new "
            f"environment `python -m deploy.keys --inventory {inventory}` makes password and keys"
        )
    return f"no vault password for {inventory}: {path} does not exist; {remedy}"


def read_password(inventory: Path) -> str:
    """The password; VaultPasswordMissingError with the remedy if there is none, or others can read it."""
    path = password_file(inventory)
    if os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE") and os.access(path, os.X_OK):
        return _ask(path)
    try:
        mode = path.stat().st_mode
        password = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise VaultPasswordMissingError(missing(inventory, path)) from None
    except OSError as error:
        raise VaultPasswordMissingError(
            f"vault password {path} cannot be read: {error.strerror}; it must be a file that is yours, with "
            f"mode 0600 (`chown $USER {path}; chmod 600 {path}`)"
        ) from None
    if mode & 0o077:
        raise VaultPasswordMissingError(f"others can read the vault password {path}; run `chmod 600 {path}`")
    if not password:
        raise VaultPasswordMissingError(f"the vault password {path} is empty; restore it from your safe")
    return _next_of(inventory, path, password) or password


def _next_of(inventory: Path, path: Path, password: str) -> str:
    """The new password, where a rotation has got past the vault and not yet past the password's file."""
    try:
        following = next_file(path).read_text(encoding="utf-8").strip()
        sealed = [vault.read_bytes() for vault in vault_files(inventory)]
    except (OSError, UnicodeDecodeError):
        return ""
    if not following or any(opens(each, password) for each in sealed):
        return ""
    return following if any(opens(each, following) for each in sealed) else ""


def _ask(script: Path) -> str:
    """The password that an executable ANSIBLE_VAULT_PASSWORD_FILE prints, as Ansible itself would ask it."""
    try:
        answer = subprocess.run([str(script)], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else "no answer within 60 s"
        raise VaultPasswordMissingError(
            f"{script} may be executed, so it was run for the vault password, and failed: {why}; if it holds "
            f"the password itself, run `chmod 600 {script}`"
        ) from None
    if answer.returncode != 0 or not answer.stdout.strip():
        raise VaultPasswordMissingError(
            f"{script} gave no vault password (exit status {answer.returncode}); run it by hand to see why"
        )
    return answer.stdout.strip()


def inventories(command: Sequence[str]) -> list[Path]:
    """Every inventory that an ansible command line names, in order."""
    found = []
    for argument, following in itertools.zip_longest(command, command[1:], fillvalue=""):
        if argument in ("-i", "--inventory", "--inventory-file") and following:
            found.append(Path(following))
        elif argument.startswith("--inventory="):
            found.append(Path(argument.partition("=")[2]))
        elif argument.startswith("-i") and len(argument) > 2:
            found.append(Path(argument[2:]))
    return found


def inventories_of_vaults(command: Sequence[str]) -> list[Path]:
    """The inventories whose `group_vars/<environment>/` a command line names files of, each once."""
    found: dict[Path, None] = {}
    for argument in command:
        parts = Path(argument).absolute().parts
        if argument.startswith("-") or "group_vars" not in parts[:-2]:
            continue
        at = len(parts) - 1 - parts[::-1].index("group_vars")
        beside, environment = Path(*parts[:at]), parts[at + 1]
        if beside == PROJECT:
            beside = PROJECT / "inventory"
        found[beside / ("inventory.yml" if ".lab" in parts else f"{environment}.yml")] = None
    return list(found)


def inventory_of(command: Sequence[str] | None, variable: str) -> Path | None:
    """The inventory that an ansible command is about; None: it names none, and only reads.

    What a command encrypts must be readable afterwards: VaultPasswordMissingError when one that may encrypt
    does not say for which environment.

    :param command: its words; None: unknown
    :param variable: ANSIBLE_INVENTORY, or empty
    """
    words = command or ()
    named = inventories(words) or [Path(each) for each in variable.split(",") if each]
    if named:
        # Molecule names an inventory of its own before ours.
        return next((inventory for inventory in named if vault_files(inventory)), named[0])
    if only_reads(command):
        return None
    if any(word.startswith(_OWN_PASSWORDS) for word in words):
        raise VaultPasswordMissingError("the command names another vault password; no environment's is given")
    of_vaults = inventories_of_vaults(words)
    if len(of_vaults) == 1:
        return of_vaults[0]
    seen = " and ".join(inventory.stem for inventory in of_vaults) or "no environment"
    raise VaultPasswordMissingError(
        f"for which environment? The command names files of {seen}. Name one file in "
        "inventory/group_vars/<environment>/, or say it before the command: "
        "ANSIBLE_INVENTORY=inventory/<environment>.yml ansible-vault …"
    )


def only_reads(command: Sequence[str] | None) -> bool:
    """Whether an ansible command opens vaults and writes none; False when it is unknown."""
    return bool(_READERS & {Path(word).name for word in (command or ())[:2]})


_READERS = frozenset(("ansible", "ansible-playbook", "ansible-lint", "ansible-inventory", "ansible-console"))
_OWN_PASSWORDS = ("--vault-pass", "--vault-id", "--ask-vault-pass", "-J")


def _command_of_parent() -> list[str] | None:
    """The words of the command that started this; None where the system does not say."""
    process = str(os.getppid())
    try:
        return Path("/proc", process, "cmdline").read_bytes().decode(errors="replace").strip("\0").split("\0")
    except OSError:  # no /proc: macOS
        pass
    try:
        told = subprocess.run(
            ["/bin/ps", "-o", "args=", "-p", process], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.split()


def main() -> int:
    """Print the password; exit status 1 and a sentence when it is needed and missing."""
    command = _command_of_parent()
    try:
        inventory = inventory_of(command, os.environ.get("ANSIBLE_INVENTORY", ""))
    except VaultPasswordMissingError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        print(read_password(inventory or DEFAULT_INVENTORY))
    except VaultPasswordMissingError as error:
        if only_reads(command) and not (inventory and vault_files(inventory)):
            # Linting and syntax checks decrypt nothing; Ansible only insists on being given some password.
            print(secrets.token_hex(32))
            return 0
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
