"""Builds the bundle of a strategy: `python -m deploy.bundle --strategy NAME`.

It lies beside the core's and is installed with it: wheels, their pins with hashes, data files, manifest,
bill of materials, signature. The same inputs give the same bytes.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tomllib
from packaging.utils import canonicalize_name

from deploy.bundle import declared_options, strategy_definition, wheel_needs, wheelhouse
from deploy.bundle.archive import ROOT, Origin, canonical, digest_of, origin, write_file, write_tar
from deploy.bundle.sbom import bill_of_materials
from deploy.bundle.signing import SigningError, sign, signing_key
from deploy.bundle.strategy_definition import Strategy
from deploy.bundle.wheel_facts import facts_of
from deploy.bundle.wheelhouse import LINUX, Requirement, WheelError, sha256
from deploy.controller.programs import MissingProgramError, require
from mt5crs_release.bundles.bundle import DATA, FORMAT, MANIFEST, SIGNATURE, STRATEGY
from mt5crs_release.desired.digest import SHORT, content_digest, parts_of

DIRECTORY = "strategies"
"""Below the output directory: each strategy's bundles, and a document per bundle that deployments read."""
_NOT_SOURCE = {".git", ".venv", "__pycache__", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_LOCAL = re.compile(r"(?:(?:-e|--editable)[ =]\s*)?(?P<path>(?:file://|\.{0,2}/)\S+|(?<=-e )\S+)\s*\Z")


@dataclass
class Needs:
    """What a strategy needs besides its own wheels, and whether a lock says so."""

    pins: list[Requirement] = field(default_factory=list)
    trees: list[Path] = field(default_factory=list)
    unlocked: list[str] = field(default_factory=list)
    """Why it is not all locked, a sentence each; production refuses such a bundle."""


def build(strategy: Strategy, out: Path, root: Path = ROOT) -> dict[str, Any]:
    """Build into ``out``/strategies; return the document that deployments read (file, digests, notices).

    :raises WheelError: something cannot be had, does not fit the hosts, or conflicts with the core
    :raises SigningError: the bundle could not be signed
    :raises MissingProgramError: uv or ssh-keygen is missing
    """
    out = out.absolute()  # programs are run in other directories
    cache = out / ".cache"
    core = core_versions(root)
    needs = needs_of(strategy, core, root)
    own = [*strategy.wheels, *(_built(tree, cache) for tree in _trees(strategy, needs))]
    facts = [wheel_needs.read(path) for path in own]
    collected = wheelhouse.collect(needs.pins, LINUX, strategy.pythons, cache) if needs.pins else {}
    wheels = {**collected, **{path.name: path for path in own}}
    everything = [*facts, *(wheel_needs.read(path) for path in collected.values())]
    problems = wheel_needs.gaps(everything, core, LINUX, strategy.pythons) + _conflicts(facts, core)
    if problems:
        raise WheelError(
            "; ".join(problems)
            + f". Lock it anew (`make strategy-lock NAME={strategy.name}`), provide wheels "
            f"for these hosts, or name fewer `pythons` in {strategy.file.name}"
        )
    version = strategy.version or facts[0].version
    offered = sorted({name for wheel in facts for name in wheel.strategies})
    options, unread = _options(facts)
    members, manifest = contents(strategy, version, origin(root), needs, wheels, facts, offered)
    manifest["options"] = options
    members[MANIFEST] = canonical(manifest)
    members[SIGNATURE] = sign(canonical(manifest), signing_key(root))
    name = f"{strategy.name}-{version}-{manifest['content'][:SHORT]}"
    code, data = parts_of(manifest["files"], DATA)
    document = {
        "name": strategy.name,
        "version": version,
        "file": f"strategy-{name}.tar",
        "content": manifest["content"],
        "code": code,
        "data": data,
        "strategies": offered,
        "options": options,
        "options_unread": unread,
        "unlocked": needs.unlocked,
    }
    directory = out / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    built = int(datetime.fromisoformat(manifest["built"]).timestamp())
    temporary = directory / f".{name}.{os.getpid()}"
    try:
        with temporary.open("wb") as stream:
            write_tar(stream, members, built)
        temporary.chmod(0o644)
        temporary.replace(directory / str(document["file"]))
    finally:
        temporary.unlink(missing_ok=True)
    # The name alone is the newest; with version and content it stays what it was.
    for known_as in (name, strategy.name):
        write_file(directory / f"{known_as}.json", canonical(document), 0o644)
    return document


def contents(
    strategy: Strategy,
    version: str,
    source: Origin,
    needs: Needs,
    wheels: Mapping[str, Path],
    own: list[wheel_needs.Wheel],
    offered: list[str],
) -> tuple[dict[str, bytes | Path], dict[str, Any]]:
    """Return the files of the bundle and its manifest."""
    hashes = {name: sha256(path) for name, path in wheels.items()}
    data = {f"{DATA}{inside}": sha256(path) for inside, path in strategy.data.items()}
    lines = [
        pin.line([digest for digest in sorted(hashes.values()) if digest in pin.hashes]) for pin in needs.pins
    ]
    by_release: dict[tuple[str, str], list[str]] = {}
    for wheel in own:
        by_release.setdefault((wheel.name, wheel.version), []).append(hashes[wheel.path.name])
    for (name, release), digests in by_release.items():
        lines.append(Requirement(name, release, None, tuple(digests)).line(sorted(digests)))
    members: dict[str, bytes | Path] = {f"wheels/{name}": path for name, path in wheels.items()}
    members |= {f"{DATA}{inside}": path for inside, path in strategy.data.items()}
    facts = {name: facts_of(path) for name, path in wheels.items()}
    texts = {"sbom.cdx.json": bill_of_materials(strategy.name, version, facts, data)}
    if wheels:
        texts["requirements.txt"] = ("\n".join(sorted(lines)) + "\n").encode()
    members |= texts
    table = {f"wheels/{name}": digest for name, digest in hashes.items()}
    table |= data | {name: digest_of(text) for name, text in texts.items()}
    return members, {
        "format": FORMAT,
        "kind": STRATEGY,
        "name": strategy.name,
        "version": version,
        "commit": source.commit,
        "built": datetime.fromtimestamp(source.built, timezone.utc).isoformat().replace("+00:00", "Z"),
        "files": table,
        "content": content_digest(table),
        "pythons": [f"cp{python.replace('.', '')}" for python in strategy.pythons],
        "platforms": [LINUX.manifest_name],
        "strategies": offered,
        "unlocked": needs.unlocked,
    }


def core_versions(root: Path) -> dict[str, str]:
    """The distributions that the core brings, name → version."""
    pins = [*wheelhouse.locked_requirements(root, LINUX), wheelhouse.locked_pip(root)]
    found = {str(canonicalize_name(pin.name)): pin.version for pin in pins}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return {**found, canonicalize_name(project["name"]): project["version"]}


def needs_of(strategy: Strategy, core: Mapping[str, str], root: Path) -> Needs:
    """What the lock says, without what the core brings in the same version.

    A strategy with needs and without a lock gets the newest fitting versions, and is marked.

    :raises WheelError: a pin has no hash, or conflicts with the core's
    """
    needs = Needs()
    if strategy.lock is not None and strategy.lock.is_file():
        text, name = strategy.lock.read_text(encoding="utf-8"), strategy.lock.name
    elif strategy.source is not None and _asks_for_others(strategy.source):
        text, name = resolved(strategy, core, root), "what was found just now"
        needs.unlocked.append(
            f"it has no lock file: what it needs was looked up while building; `make strategy-lock "
            f"NAME={strategy.name}` makes one"
        )
    else:
        return needs
    conflicts = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        local = _LOCAL.match(line)
        if local and strategy.lock is not None:
            needs.trees.append(strategy.lock.parent / local["path"].removeprefix("file://"))
            needs.unlocked.append(f"{name} names the folder {local['path']}, whose content nothing pins")
            continue
        pin = next(iter(wheelhouse.parse_requirements(line)), None)
        if pin is None or not pin.hashes:
            raise WheelError(
                f"{name}: `{line[:60]}` is no pin with a hash. Make the lock anew: "
                f"`make strategy-lock NAME={strategy.name}`"
            )
        theirs = core.get(canonicalize_name(pin.name))
        if theirs is None:
            needs.pins.append(pin)
        elif theirs != pin.version:
            conflicts.append(f"{pin.name} {pin.version} of {name} against the core's {theirs}")
    if conflicts:
        raise WheelError(
            f"strategy {strategy.name} conflicts with the core: {'; '.join(conflicts)}. "
            f"Lock it with the core's versions: `make strategy-lock NAME={strategy.name}`"
        )
    return needs


def resolved(strategy: Strategy, core: Mapping[str, str], root: Path) -> str:
    """The text of a lock: the newest versions that fit the strategy and the core's.

    :raises WheelError: there are none
    """
    if strategy.source is None:
        raise WheelError(f"{strategy.file.name} names no `source`, so there is nothing to lock from")
    with tempfile.TemporaryDirectory() as directory:
        pins = Path(directory) / "core.txt"
        lines = [f"{name}=={version}" for name, version in core.items() if name != "mt5crs"]
        pins.write_text("\n".join(lines) + "\n", encoding="utf-8")
        options = "--quiet --universal --generate-hashes --no-header --no-annotate --no-emit-package mt5crs"
        oldest = min(strategy.pythons, key=lambda python: tuple(map(int, python.split("."))))
        command = [require("uv"), "pip", "compile", *options.split(), "--python-version", oldest]
        command += ["--constraint", str(pins), str(strategy.source / "pyproject.toml")]
        return wheelhouse.run(
            command,
            root,
            "The core's versions stand; loosen what the strategy asks for, or name fewer `pythons`.",
        )


def run(name: str, out: Path, *, lock: bool, directory: Path = ROOT / "strategies") -> int:
    """Build or lock from the command line; return the exit status."""
    try:
        strategy = strategy_definition.read(name, directory)
        if lock:
            text = resolved(strategy, core_versions(ROOT), ROOT)
            assert strategy.lock is not None  # noqa: S101  (with a source there is one)
            strategy.lock.write_text(text, encoding="utf-8")
            print(f"{strategy.lock}: {len(wheelhouse.parse_requirements(text))} pinned")
            return 0
        document = build(strategy, out)
    except (MissingProgramError, WheelError, SigningError, OSError) as error:
        print(f"strategy-bundle: {error}", file=sys.stderr)
        return 1
    path = out / DIRECTORY / document["file"]
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB  content {document['content'][:SHORT]}")
    offered = ", ".join(document["strategies"]) or "none (name module:Class)"
    print(f"strategies in it: {offered}. Deploy it with `strategy_bundle: {name}`")
    for name, why in document["options_unread"].items():
        print(f"NOTICE: options of {name} are checked when it starts, not before: {why}.")
    for why in document["unlocked"]:
        print(f"NOTICE: {why}. The lab takes such a bundle, staging and production refuse it.")
    return 0


def _options(own: list[wheel_needs.Wheel]) -> tuple[dict[str, Any], dict[str, str]]:
    """Strategy → the options that it declares, and → why they are not known without running it.

    Both by the name of its entry point and by module:Class. One that declares none is in neither.
    """
    read: dict[str, Any] = {}
    unread: dict[str, str] = {}
    for wheel in own:
        for name, loads in sorted(wheel.strategies.items()):
            try:
                options = declared_options.of_wheel(wheel.path, loads)
            except declared_options.UnreadableError as error:
                unread[name] = str(error)
                continue
            if options is not None:
                read |= {name: options, loads: options}
    return read, unread


def _trees(strategy: Strategy, needs: Needs) -> list[Path]:
    return [*([strategy.source] if strategy.source else []), *needs.trees]


def _built(tree: Path, cache: Path) -> Path:
    if not (tree / "pyproject.toml").is_file():
        raise WheelError(f"{tree} has no pyproject.toml, so no wheel can be built of it. Correct the path")
    sources = (path for path in tree.rglob("*") if _NOT_SOURCE.isdisjoint(path.relative_to(tree).parts))
    return wheelhouse.build_wheel(tree, sources, cache, "strategy")


def _asks_for_others(source: Path) -> bool:
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
    return bool(project.get("project", {}).get("dependencies"))


def _conflicts(own: list[wheel_needs.Wheel], core: Mapping[str, str]) -> list[str]:
    return [
        f"{wheel.path.name} would replace the core's {wheel.name} {core[wheel.name]}"
        for wheel in own
        if wheel.name in core
    ]
