"""Known weaknesses of the locked Python packages, asked of OSV (osv.dev) in one request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import tomllib

from pipeline.scans.model import Found, Scan

NAME: Final = "advisories"
SERVICE: Final = "https://api.osv.dev/v1/querybatch"
_WITHIN_S: Final = 30.0


def locked(lock: str) -> dict[str, str]:
    """Version of every package that `uv.lock` names and that comes from an index."""
    packages = tomllib.loads(lock)["package"]
    return {
        each["name"]: each["version"]
        for each in packages
        if "registry" in each.get("source", {}) and "version" in each
    }


def question(packages: Mapping[str, str]) -> dict[str, Any]:
    """What OSV is asked."""
    return {
        "queries": [
            {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
            for name, version in sorted(packages.items())
        ]
    }


def read(packages: Mapping[str, str], answer: Any) -> Scan:
    """What OSV's answer says; one that does not answer every question answers none."""
    told = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(told, list) or len(told) != len(packages):
        return _unknown(f"{SERVICE} did not answer about all {len(packages)} packages")
    found, cut = [], False
    for (name, version), each in zip(sorted(packages.items()), told, strict=True):
        cut = cut or bool((each or {}).get("next_page_token"))
        found += [
            Found(key=str(weakness["id"]), detail=f"{name} {version}")
            for weakness in (each or {}).get("vulns", [])
        ]
    return Scan(
        name=NAME,
        looked_at=len(packages),
        what="packages",
        found=found,
        not_checked=f"{SERVICE} has more to say than it said" if cut else "",
    )


def scan(root: Path, service: str = SERVICE) -> Scan:
    """Ask about what `uv.lock` has. Nothing answered is `not checked`."""
    packages = locked((root / "uv.lock").read_text())
    try:
        answer = httpx.post(service, json=question(packages), timeout=_WITHIN_S)
        answer.raise_for_status()
        return read(packages, answer.json())
    except (httpx.HTTPError, ValueError) as error:
        return _unknown(
            f"{service} was not reached ({str(error).partition(chr(10))[0] or type(error).__name__})"
        )


def _unknown(why: str) -> Scan:
    return Scan(name=NAME, what="packages", not_checked=why)
