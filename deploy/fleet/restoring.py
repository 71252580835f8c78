"""Back to an earlier configuration: which files would be written, and whether that admits or allows anything.

Only variables go back (`group_vars`, `host_vars`): hosts come and go with the inventory, defaults with the
code, keys with their vault, waivers by decision. What decides is pure.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.fleet.guarded import ACCESS, FOLLOWS, LIMITS
from deploy.fleet.inventory import Fleet
from deploy.fleet.snapshot import BESIDE, DEFAULTS

_KINDS = ("group_vars/", "host_vars/")
_KEYS = ("fleet_client_public_keys", "fleet_gateway_public_keys")


@dataclass(frozen=True)
class Restoring:
    """What going back does: name → text now and then (None: no such file); name → why it stays as it is."""

    files: Mapping[str, tuple[str | None, str | None]]
    left: Mapping[str, str]

    def diff(self) -> Iterator[str]:
        """The change of each file, as `diff -u` shows it."""
        for name, (now, then) in self.files.items():
            yield from difflib.unified_diff(
                (now or "").splitlines(),
                (then or "").splitlines(),
                name if now is not None else f"{name} (not there)",
                name if then is not None else f"{name} (removed)",
                lineterm="",
            )


def plan(then: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> Restoring:
    """Compare the files of a snapshot with those of now, both as `snapshot.file_of` has them."""
    files: dict[str, tuple[str | None, str | None]] = {}
    left: dict[str, str] = {}
    for name in sorted({*then, *now}):
        was, is_ = then.get(name), now.get(name)
        if was == is_:
            continue
        why = _why_left(name, was, is_)
        if why:
            left[name] = why
        else:
            files[name] = (is_["text"] if is_ else None, was["text"] if was else None)
    return Restoring(files, left)


def _why_left(name: str, was: Mapping[str, str] | None, is_: Mapping[str, str] | None) -> str:
    if not name.removeprefix(BESIDE).startswith(_KINDS):
        return "it is no file of variables"
    if name == DEFAULTS:
        return "it belongs to the code"
    if any(key in (of or {}).get("text", "") for of in (was, is_) for key in _KEYS):
        return "keys go with their vault"
    for of, which in ((was, "then"), (is_, "now")):
        if of is not None and "text" not in of:
            return f"{which} {of['why']}, so only its digest is kept"
    return ""


def changed(before: Fleet, after: Fleet) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Setting → host → (value before, value after), for all that differ and are guarded."""
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for host in before.hosts:
        then, now = before.hosts[host], after.hosts.get(host, {})
        for name in sorted(ACCESS | LIMITS):
            if then.get(name) != now.get(name):
                found.setdefault(name, {})[host] = (then.get(name), now.get(name))
    return found


def to_be_named(names: Collection[str], given: Collection[str]) -> list[str]:
    """Guarded settings that change and were not named; one that follows from others needs these named."""
    named = set(given)
    return sorted(
        name
        for name in names
        if name not in named and not any(source in named for source in FOLLOWS.get(name, ()))
    )


def write(path: Path, text: str | None) -> None:
    """Give a file this text in one step, with the mode that it has; None removes it. May raise OSError."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
