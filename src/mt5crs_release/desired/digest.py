"""The identity of a generation and of a bundle's content: same inputs, same digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SHORT = 12
"""Characters of a digest shown in directory names."""


def canonical_json(value: Any) -> bytes:
    """Return ``value`` as JSON with sorted keys and no spaces, UTF-8: one value, one byte string."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def generation_digest(spec: Mapping[str, Any], bundle: str | None) -> str:
    """Return the SHA-256 (hex) that identifies a generation.

    :param spec: the specification as sent to ``mt5crs-release stage``; its ``review`` says why the code may
        be staged, not what is staged, and is no part of the identity
    :param bundle: content digest of the bundle, ``None`` for configuration-only services
    """
    identity = {key: value for key, value in spec.items() if key != "review"}
    return hashlib.sha256(canonical_json({"bundle": bundle, "spec": identity})).hexdigest()


def fixed_digest(spec: Mapping[str, Any], bundle: str | None) -> str | None:
    """Return the SHA-256 (hex) of what keeps running services from taking a generation over as they are.

    Two generations with the same one differ at most in what their ``live`` files say: those the services read
    again. ``None``: it has no such files, so any change of it is a restart.

    :param spec: the specification as sent to ``mt5crs-release stage``
    :param bundle: content digest of the bundle, ``None`` for configuration-only services
    """
    live = spec.get("live")
    if not live:
        return None
    files = {
        path: {**file, "content": None} if path in live else file for path, file in spec["files"].items()
    }
    return generation_digest({**spec, "files": files}, bundle)


def content_digest(files: Mapping[str, str]) -> str:
    """Return the digest of a bundle's content: SHA-256 over its ``{path: sha256}`` table.

    Neither commit nor build time enters it, so a rebuild of the same code is the same release.
    """
    return hashlib.sha256(canonical_json(files)).hexdigest()


def parts_of(files: Mapping[str, str], data: str) -> tuple[str | None, str | None]:
    """Return the digests of a strategy bundle's code and of its data, ``None`` for what it has not.

    Code: wheels and their pins; what says something about them (the bill of materials) changes nothing.

    :param files: the bundle's ``{path: sha256}`` table
    :param data: where data begins
    """
    wheels = any(name.startswith("wheels/") for name in files)
    code = {name: files[name] for name in files if name.startswith("wheels/") or name == "requirements.txt"}
    held = {name: files[name] for name in files if name.startswith(data)}
    return content_digest(code) if wheels else None, content_digest(held) if held else None


def runtime_digest(core: str, code: str | None) -> str:
    """Return what a runtime holds: the core bundle ``core``, and the wheels of a strategy bundle if any."""
    return core if code is None else hashlib.sha256(f"{core}+{code}".encode()).hexdigest()


def generation_name(counter: int, digest: str) -> str:
    """Return the directory name of a generation, for instance ``0003-abcdef123456``."""
    return f"{counter:04d}-{digest[:SHORT]}"
