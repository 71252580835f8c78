"""Builds what hosts get: a signed bundle of wheels per platform, and the release tool.

``python -m deploy.bundle [--out dist] [--platform linux|windows|all]``. Builds repeat byte by byte;
an unchanged one is taken from the cache below the output directory.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tomllib

from deploy.bundle import wheelhouse
from deploy.bundle.sbom import bill_of_materials
from deploy.bundle.signing import SigningError, sign, signing_key
from deploy.bundle.wheel_facts import facts_of
from deploy.bundle.wheelhouse import PLATFORMS, PYTHONS, Platform, Requirement, WheelError, sha256
from deploy.bundle.zipapp_build import build_zipapp
from deploy.controller.programs import MissingProgramError, find
from mt5crs.protocol.fields import VERSION as PROTOCOL
from mt5crs_release.bundle import FORMAT, MANIFEST, SIGNATURE
from mt5crs_release.digest import SHORT, content_digest

ROOT = Path(__file__).resolve().parents[2]
NAME = "mt5crs"
TOOL = "mt5crs-release"
LATEST = "latest.json"
"""In the output directory: file name, content digest and version of the newest bundle per platform."""

KEPT = 5
"""Bundles per platform that stay in the output directory."""

Phase = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Origin:
    """Where the code comes from; recorded in the manifest, outside the content digest."""

    commit: str
    built: int
    """Seconds since 1970: ``SOURCE_DATE_EPOCH``, else the time of the commit."""


def origin(root: Path) -> Origin:
    """Return commit and time of the work tree; ``unknown`` outside git, or where git is not installed."""
    program = find("git")

    def git(*arguments: str) -> str:
        if program is None:
            return ""
        answer = subprocess.run(
            [program, "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() if answer.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "pyproject.toml", "uv.lock")
    built = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or "315532800"
    return Origin((git("rev-parse", "HEAD") or "unknown") + ("+changes" if changed else ""), int(built))


def build(out: Path, platforms: Iterable[Platform], phase: Phase, root: Path = ROOT) -> dict[str, Any]:
    """Build the release tool and a bundle per platform into ``out``; return what ``latest.json`` says.

    :raises WheelError: wheels could not be built or downloaded
    :raises SigningError: the bundle could not be signed
    :raises MissingProgramError: uv or ssh-keygen is missing
    """
    out.mkdir(parents=True, exist_ok=True)
    cache = out / ".cache"
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    source = origin(root)
    key = signing_key(root)
    with phase("release tool"):
        _replace(out / TOOL, build_zipapp(root / "src/mt5crs_release", version), 0o755)
    with phase("our wheel"):
        own = wheelhouse.build_own_wheel(root, cache)
    latest: dict[str, Any] = {"tool": TOOL, "bundles": newest(out)}
    for platform in platforms:
        with phase(f"wheels for {platform.name}, Python {', '.join(PYTHONS)}"):
            requirements = [*wheelhouse.locked_requirements(root, platform), wheelhouse.locked_pip(root)]
            wheels = {own.name: own, **wheelhouse.collect(requirements, platform, PYTHONS, cache)}
        with phase(f"bundle for {platform.name}"):
            members, manifest = contents(version, source, platform, requirements, own, wheels)
            members[MANIFEST] = canonical(manifest)
            members[SIGNATURE] = sign(members[MANIFEST], key)
            suffix = "" if platform.name == "linux" else f"-{platform.name}"
            name = f"{NAME}-{version}{suffix}-{manifest['content'][:SHORT]}.tar"
            _replace(out / name, pack(members, source.built), 0o644)
        latest["bundles"][platform.name] = {"file": name, "content": manifest["content"], "version": version}
        _forget_old(out, name)
    _replace(out / LATEST, canonical(latest), 0o644)
    return latest


def newest(out: Path) -> dict[str, dict[str, str]]:
    """Return the newest bundle per platform in ``out``: ``{"linux": {"file", "content", "version"}}``."""
    try:
        bundles: dict[str, dict[str, str]] = json.loads((out / LATEST).read_bytes())["bundles"]
    except (FileNotFoundError, ValueError, KeyError):
        return {}
    return {platform: entry for platform, entry in bundles.items() if (out / entry["file"]).is_file()}


def contents(
    version: str,
    source: Origin,
    platform: Platform,
    requirements: Sequence[Requirement],
    own: Path,
    wheels: dict[str, Path],
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a bundle and its manifest."""
    hashes = {name: sha256(path) for name, path in wheels.items()}
    pins = [
        item
        for item in requirements
        # pip installs from its wheel, and is not installed: it would be more than half of a runtime's files
        if item.name != "pip" and any(digest in item.hashes for digest in hashes.values())
    ]
    lines = [
        item.line([digest for digest in sorted(hashes.values()) if digest in item.hashes]) for item in pins
    ]
    lines.append(Requirement(NAME, version, None, (hashes[own.name],)).line([hashes[own.name]]))
    files = {f"wheels/{name}": path.read_bytes() for name, path in wheels.items()}
    files["requirements.txt"] = ("\n".join(sorted(lines)) + "\n").encode()
    files["sbom.cdx.json"] = bill_of_materials(
        NAME, version, {name: facts_of(path) for name, path in wheels.items()}
    )
    table = {f"wheels/{name}": digest for name, digest in hashes.items()}
    table |= {name: _digest(files[name]) for name in ("requirements.txt", "sbom.cdx.json")}
    manifest = {
        "format": FORMAT,
        "name": NAME,
        "version": version,
        "commit": source.commit,
        "built": datetime.fromtimestamp(source.built, timezone.utc).isoformat().replace("+00:00", "Z"),
        "files": table,
        "content": content_digest(table),
        "pythons": [f"cp{python.replace('.', '')}" for python in PYTHONS],
        "platforms": [platform.manifest_name],
        "protocol": {"min": PROTOCOL, "max": PROTOCOL},
    }
    return files, manifest


def pack(members: dict[str, bytes], built: int) -> bytes:
    """Return ``members`` as a tar whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        # Manifest and signature first: a reader can judge before it reads the rest.
        for name in sorted(members, key=lambda name: (name not in (MANIFEST, SIGNATURE), name)):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(members[name]), built, 0o644
            archive.addfile(member, io.BytesIO(members[name]))
    return buffer.getvalue()


def canonical(document: dict[str, Any]) -> bytes:
    """Return ``document`` as readable JSON that depends on nothing but its content."""
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.bundle", description="Builds the signed bundles and the tool."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go (default dist)")
    parser.add_argument("--platform", choices=[*PLATFORMS, "all"], default="linux", help="default linux")
    options = parser.parse_args(arguments)
    chosen = PLATFORMS.values() if options.platform == "all" else [PLATFORMS[options.platform]]
    try:
        latest = build(options.out, chosen, _told)
    except (MissingProgramError, WheelError, SigningError, OSError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nbundle: interrupted; wheels that are downloaded are kept, the bundle before it too",
            file=sys.stderr,
        )
        return 130
    for entry in latest["bundles"].values():
        size = (options.out / entry["file"]).stat().st_size / 1e6
        print(f"{options.out / entry['file']}  {size:.1f} MB  content {entry['content'][:SHORT]}")
    return 0


@contextmanager
def _told(what: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"{what} …", end="", flush=True)
    yield
    print(f" {time.monotonic() - began:.1f} s", flush=True)


def _forget_old(out: Path, name: str) -> None:
    """Remove all but the newest few bundles of the platform that ``name`` is for."""
    alike = re.compile(re.escape(name[: -len(".tar") - SHORT]) + r"[0-9a-f]+\.tar\Z")
    bundles = [path for path in out.iterdir() if alike.match(path.name) and path.name != name]
    bundles.sort(key=lambda path: path.stat().st_mtime)
    for path in bundles[: -(KEPT - 1)]:
        path.unlink()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write ``path`` in one step; a file that is the same already is left alone."""
    if path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)
