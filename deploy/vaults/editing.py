"""A vault in an editor: a decrypted copy in a private place, judged before anything is replaced."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.controller.programs import find
from deploy.fleet.curve import public_half
from deploy.vaults import private, store, text, usage

_EDITORS = ("sensible-editor", "vi", "nano")


def editor(variables: Mapping[str, str], *, terminal: bool) -> list[str]:
    """The command of $EDITOR (else $VISUAL, else what there is). VaultError when there is none.

    terminal: whether somebody sits there; what there is waits for somebody, without end.
    """
    name = next((of for of in ("EDITOR", "VISUAL") if variables.get(of, "").strip()), None)
    if name is None and not terminal:
        raise store.VaultError(
            "no editor: this is no terminal, and EDITOR is not set; say which program edits, as EDITOR=… "
            "before it"
        )
    if name is None:
        there = next((path for each in _EDITORS if (path := find(each))), None)
        if there is None:
            raise store.VaultError(
                "no editor: EDITOR is not set, and there is neither vi nor nano; say EDITOR=… before it"
            )
        return [there]
    try:
        words = shlex.split(variables[name])
    except ValueError:
        raise store.VaultError(
            f"{name} is no command (a quote without its end); set it to an editor"
        ) from None
    path = find(words[0]) if words else None
    if path is None:
        raise store.VaultError(
            f"{name} names {words[0]!r}, which is no program on this machine; set it to an editor that is "
            f"there, as in {name}=nano"
        )
    return [path, *words[1:]]


def edit(
    vault: store.Vault,
    inventory: Path,
    command: list[str],
    *,
    again: Callable[[str], bool],
    say: Callable[[str], None],
) -> text.Changes | None:
    """Have a vault edited, under the lock of its directory; what changed, None: nothing did.

    again: asked with what is wrong, whether to edit once more. Raises VaultError, and then the vault is as it
    was; only a vault without mistakes that were not there before is written.
    """
    before = _values(vault.text)
    wanted = usage.named(inventory)
    public = _public(vault.path.with_name("keys.yml"))
    known = set() if before is None else set(_problems(before, wanted, public))
    with private.place() as (directory, in_memory):
        if not in_memory:
            say(f"no place in memory here: the decrypted copy is in {directory} on disk until you are done")
        copy = directory / "vault.yml"
        _write(copy, vault.text)
        while True:
            _run([*command, str(copy)], directory)
            changed = _read(copy)
            if changed == vault.text:
                return None
            wrong, after = _judged(changed, known, wanted, public)
            if changed is not None and after is not None and not wrong:
                try:
                    _replace(vault, changed)
                except store.VaultError as error:
                    wrong = [str(error)]
                else:
                    break
            if not again("\n".join(wrong)):
                raise store.VaultError(f"{'; '.join(wrong)} -- {vault.path} was not changed")
    for name in sorted(known & set(_problems(after, wanted, public))):
        say(f"still wrong: {name}")
    for name in text.unused(after, wanted):
        if name not in (before or {}):
            say(f"nothing refers to {name} yet{text.like(name, wanted - after.keys())}")
    return text.changes(before or {}, after)


def _values(content: str) -> dict[str, Any] | None:
    try:
        return text.values(content)
    except text.VaultTextError:
        return None  # it is opened to be mended


def _problems(
    of: Mapping[str, Any], wanted: frozenset[str], public: Mapping[str, Mapping[str, str]]
) -> list[str]:
    return text.problems(of, wanted=wanted, public=public, public_half=public_half)


def _judged(
    content: str | None, known: set[str], wanted: frozenset[str], public: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], dict[str, Any] | None]:
    """What is wrong that was not before, and the variables."""
    if content is None:
        return ["the copy is gone, or is no UTF-8 text: the editor must write it in place"], None
    try:
        after = text.values(content)
    except text.VaultTextError as error:
        return [str(error)], None
    return [each for each in _problems(after, wanted, public) if each not in known], after


def _replace(vault: store.Vault, changed: str) -> None:
    if store.read(vault.path) != vault.sealed:
        raise store.VaultError(f"{vault.path} was changed by something else meanwhile; edit it once more")
    store.replace(vault.path, store.seal(changed, vault.password))


def _public(path: Path) -> dict[str, dict[str, str]]:
    try:
        found = text.values(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, text.VaultTextError):
        return {}
    return {name: of for name, of in found.items() if isinstance(of, dict)}


def _write(path: Path, content: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
    except OSError as error:
        raise store.VaultError(
            f"no room for a decrypted copy in {path.parent}: {error.strerror}; nothing was changed"
        ) from None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _run(command: list[str], directory: Path) -> None:
    """Run the editor. What it makes beside the copy is ours alone, and in the place that is removed."""
    keys = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(
            signal.SIGINT, lambda *_: None
        )  # Ctrl-C is the editor's; ignored, it would be there too
    except ValueError:
        keys = None  # not the main thread
    try:
        process = None
        try:
            with private.undisturbed():
                process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(directory)}, umask=0o077)
            status = process.wait()
        except BaseException:
            if process is None:
                raise
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    except OSError as error:
        raise store.VaultError(f"{command[0]} cannot be started: {error.strerror}; set EDITOR") from None
    finally:
        if keys is not None:
            signal.signal(signal.SIGINT, keys)
    if status != 0:
        raise store.VaultError(
            f"{Path(command[0]).name} ended with {status}; nothing was changed"
            + ("" if status > 0 else " (a signal ended it)")
        )
