"""Builds what hosts get: a signed bundle of wheels per platform, and the release tool.

``python -m deploy.bundle [--out dist] [--platform linux|linux-arm64|windows|all]``. Builds repeat byte by
byte; an unchanged one is taken from the cache below the output directory.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tomllib

from deploy.bundle import strategy_bundle, wheelhouse
from deploy.bundle.archive import ROOT, Origin, canonical, digest_of, origin, pack, write_file
from deploy.bundle.sbom import bill_of_materials
from deploy.bundle.signing import SigningError, sign, signing_key
from deploy.bundle.wheel_facts import facts_of
from deploy.bundle.wheelhouse import PLATFORMS, Platform, Requirement, WheelError, sha256
from deploy.bundle.zipapp_build import build_zipapp
from deploy.controller.programs import MissingProgramError
from mt5crs.protocol.fields import VERSION as PROTOCOL
from mt5crs_release.bundles.bundle import CORE, FORMAT, MANIFEST, SIGNATURE
from mt5crs_release.desired.digest import SHORT, content_digest

NAME = "mt5crs"
TOOL = "mt5crs-release"
LATEST = "latest.json"
"""In the output directory: file name, content digest and version of the newest bundle per platform."""

KEPT = 5
"""Bundles per platform that stay in the output directory."""

Phase = Callable[[str], AbstractContextManager[None]]


def build(out: Path, platforms: Iterable[Platform], phase: Phase, root: Path = ROOT) -> dict[str, Any]:
    """Build the release tool and a bundle per platform into ``out``; return what ``latest.json`` says.

    :raises WheelError: wheels could not be built or downloaded
    :raises SigningError: the bundle could not be signed
    :raises MissingProgramError: uv or ssh-keygen is missing
    """
    out = out.absolute()  # programs are run in other directories
    out.mkdir(parents=True, exist_ok=True)
    cache = out / ".cache"
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    source = origin(root)
    key = signing_key(root)
    with phase("release tool"):
        write_file(out / TOOL, build_zipapp(root / "src/mt5crs_release", version), 0o755)
    with phase("our wheel"):
        own = wheelhouse.build_own_wheel(root, cache)
    latest: dict[str, Any] = {"tool": TOOL, "bundles": newest(out)}
    for platform in platforms:
        with phase(f"wheels for {platform.name}, Python {', '.join(platform.pythons)}"):
            requirements = [*wheelhouse.locked_requirements(root, platform), wheelhouse.locked_pip(root)]
            wheels = {own.name: own, **wheelhouse.collect(requirements, platform, platform.pythons, cache)}
        with phase(f"bundle for {platform.name}"):
            members, manifest = contents(version, source, platform, requirements, own, wheels)
            members[MANIFEST] = canonical(manifest)
            members[SIGNATURE] = sign(members[MANIFEST], key)
            suffix = "" if platform.name == "linux" else f"-{platform.name}"
            name = f"{NAME}-{version}{suffix}-{manifest['content'][:SHORT]}.tar"
            write_file(out / name, pack(members, source.built), 0o644)
        latest["bundles"][platform.name] = {"file": name, "content": manifest["content"], "version": version}
        _forget_old(out, name)
    write_file(out / LATEST, canonical(latest), 0o644)
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
    table |= {name: digest_of(files[name]) for name in ("requirements.txt", "sbom.cdx.json")}
    manifest = {
        "format": FORMAT,
        "kind": CORE,
        "name": NAME,
        "version": version,
        "commit": source.commit,
        "built": datetime.fromtimestamp(source.built, timezone.utc).isoformat().replace("+00:00", "Z"),
        "files": table,
        "content": content_digest(table),
        "pythons": [f"cp{python.replace('.', '')}" for python in platform.pythons],
        "platforms": [platform.manifest_name],
        "protocol": {"min": PROTOCOL, "max": PROTOCOL},
    }
    return files, manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Build from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.bundle", description="Builds the signed bundles and the tool."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go (default dist)")
    parser.add_argument("--platform", choices=[*PLATFORMS, "all"], default="linux", help="default linux")
    parser.add_argument("--strategy", metavar="NAME", help="instead: the bundle of strategies/NAME.yml")
    parser.add_argument(
        "--lock", action="store_true", help="with --strategy: write its lock file, with the core's versions"
    )
    options = parser.parse_args(arguments)
    if options.strategy:
        return strategy_bundle.run(options.strategy, options.out, lock=options.lock)
    if options.lock:
        parser.error("--lock goes with --strategy NAME; the core's lock is made by `uv lock`")
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
