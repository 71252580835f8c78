"""A generation on disk: written once, never changed; its manifest says what belongs to it."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mt5crs_release.bundles import runtime_files
from mt5crs_release.desired.spec import DATA_LINK, HealthSpec, Spec, StandbySpec
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.generations.unit_install import install_directories
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import COMPLETE, MANIFEST, TEMPORARY
from mt5crs_release.systems import system

FORMAT = 1


@dataclass(frozen=True)
class Content:
    """What activation needs to know of a generation."""

    name: str
    units: tuple[str, ...]
    """Units and drop-ins it brings, by path below /etc/systemd/system."""
    unit_hashes: dict[str, str]
    install: dict[str, list[str]]
    """For each whole unit, the directories that make it start at boot."""
    start: tuple[str, ...]
    health: HealthSpec
    standby: StandbySpec | None = None
    """How it runs beside another generation; ``None``: it does not (or an older tool wrote it)."""
    reload_on_confirm: tuple[str, ...] = ()
    """Units to reload once it is confirmed; none in what an older tool wrote."""
    access: str | None = None
    """The file with its access list; ``None``: it brings none (or an older tool wrote it)."""
    live: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Files that running units read again when told to, each with those units; none of an older tool's."""
    live_hashes: dict[str, str] = field(default_factory=dict)
    """What is in those files."""
    shadow: StandbySpec | None = None
    """How it runs in the shadow of another generation; ``None``: it does not (or an older tool wrote it)."""

    @property
    def running(self) -> frozenset[str]:
        """Units that run because of this generation: started by it, or brought whole."""
        return frozenset(self.start) | {unit for unit in self.units if "/" not in unit}


def write(
    directory: Path, name: str, spec: Spec, digest: str, runtime: str | None, data: str | None = None
) -> None:
    """Write generation ``name`` below ``directory``; it has its name only once all of it is on disk.

    :raises RefusedError: an owner or a group does not exist on this host
    """
    owners = _owners(spec)
    temporary = directory / f"{TEMPORARY}{name}"
    store.ensure_directory(directory)
    temporary.mkdir(0o700)
    system.here().protect(temporary)  # before content: what is written below is never readable by others
    files: dict[str, dict[str, Any]] = {}
    for path, file in sorted(spec.files.items()):
        content = file.content.encode()
        _parents(temporary, path)
        store.write_new(temporary / path, content, file.mode, owners[file.owner, file.group])
        files[path] = {"mode": file.mode, "sha256": hashlib.sha256(content).hexdigest()}
    _parents(temporary, "units/x")
    for unit, text in sorted({**spec.units, **spec.standby_units}.items()):
        _parents(temporary, f"units/{unit}")
        store.write_new(temporary / "units" / unit, text.encode(), 0o644)
        files[f"units/{unit}"] = {"mode": 0o644, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    if runtime is not None:
        system.here().link_directory(temporary / "venv", directory.parents[1] / "runtimes" / runtime)
    if data is not None:
        system.here().link_directory(temporary / DATA_LINK, directory.parents[1] / "runtimes" / data)
    manifest = {
        "format": FORMAT,
        "generation": name,
        "service": spec.service,
        "digest": digest,
        "runtime": runtime,
        "data": data,
        "files": files,
        "units": sorted(spec.units),
        "install": {unit: install_directories(text) for unit, text in spec.units.items() if "/" not in unit},
        "start": list(spec.start),
        "health": spec.raw["health"],
        "standby": None if spec.standby is None else asdict(spec.standby),
        "shadow": None if spec.shadow is None else asdict(spec.shadow),
        "reload_on_confirm": list(spec.reload_on_confirm),
        "access": spec.access,
        "live": {path: list(units) for path, units in spec.live.items()},
    }
    # Root only: a hash of a file with a short secret would let others try guesses.
    store.write_new(temporary / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode(), 0o600)
    system.here().release(temporary)
    store.publish_directory(temporary, directory / name)


def read(directory: Path) -> Content:
    """Return what the manifest of the generation in ``directory`` says.

    :raises FailedError: there is none, or it is damaged
    """
    try:
        manifest = _manifest(directory)
        health = manifest["health"]
        live = {path: tuple(units) for path, units in manifest.get("live", {}).items()}
        return Content(
            name=manifest["generation"],
            units=tuple(manifest["units"]),
            unit_hashes={unit: manifest["files"][f"units/{unit}"]["sha256"] for unit in manifest["units"]},
            install=dict(manifest["install"]),
            start=tuple(manifest["start"]),
            health=HealthSpec(**{**health, "command": tuple(health["command"])}),
            standby=_beside(manifest.get("standby")),
            shadow=_beside(manifest.get("shadow")),
            reload_on_confirm=tuple(manifest.get("reload_on_confirm", ())),
            access=manifest.get("access"),
            live=live,
            live_hashes={path: manifest["files"][path]["sha256"] for path in live},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedError(
            f"generation {directory.name} cannot be used: {type(error).__name__} in its manifest",
            remedy="stage the service again: that makes a new, complete generation",
        ) from None


def start_units(directory: Path) -> list[str]:
    """Return the units that the generation in ``directory`` starts; none when its manifest is damaged.

    :raises PermissionError: whoever asks may not read it
    """
    try:
        return list(_manifest(directory)["start"])
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError):
        return []


def problems(directory: Path, of_runtime: Callable[..., list[str]] = runtime_files.problems) -> list[str]:
    """Return how the generation in ``directory`` differs from its manifest; empty when it is intact.

    of_runtime: asked about the runtime's own directory, which several generations may share
    :raises PermissionError: whoever asks may not read it, so whether it differs is not known
    """
    try:
        manifest = _manifest(directory)
        files: dict[str, dict[str, Any]] = manifest["files"]
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError) as error:
        return [f"its manifest cannot be read ({type(error).__name__})"]
    found = []
    for name, wanted in files.items():
        path = directory / name
        try:
            status = path.lstat()
            same = (
                stat.S_ISREG(status.st_mode)
                and hashlib.sha256(path.read_bytes()).hexdigest() == wanted["sha256"]
            )
        except PermissionError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            found.append(f"{name} is missing")
            continue
        except OSError as error:
            found.append(f"{name} cannot be read ({error.strerror})")
            continue
        if not same:
            found.append(f"{name} was changed")
        elif system.here().keeps_modes and stat.S_IMODE(status.st_mode) != wanted["mode"]:
            found.append(f"{name} has mode {stat.S_IMODE(status.st_mode):04o}, not {wanted['mode']:04o}")
    if manifest["runtime"] is not None and not (directory / "venv/.complete").is_file():
        found.append(f"its runtime {manifest['runtime']} is missing or incomplete")
    elif manifest["runtime"] is not None:
        found += of_runtime((directory / "venv").resolve(), "runtime")
    data = manifest.get("data")  # none in what an older tool wrote
    if data is not None and not (directory / DATA_LINK / COMPLETE).is_file():
        found.append(f"its data {data} is missing or incomplete")
    elif data is not None:
        found += of_runtime((directory / DATA_LINK).resolve(), "data")
    return found


def _manifest(directory: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_bytes())
    return manifest


def _beside(entry: dict[str, Any] | None) -> StandbySpec | None:
    if entry is None:
        return None
    return StandbySpec(**{**entry, "units": tuple(entry["units"]), "check": tuple(entry["check"])})


def _parents(base: Path, path: str) -> None:
    for parent in reversed((base / path).relative_to(base).parents[:-1]):
        directory = base / parent
        if not directory.is_dir():
            directory.mkdir(0o755)
            directory.chmod(0o755)


def _owners(spec: Spec) -> dict[tuple[str, str], tuple[int, int] | None]:
    owners: dict[tuple[str, str], tuple[int, int] | None] = {}
    missing = []
    for file in spec.files.values():
        try:
            owners[file.owner, file.group] = system.here().owner(file.owner, file.group)
        except KeyError:
            missing.append(f"{file.owner}:{file.group}")
    if missing:
        raise RefusedError(
            f"these owners do not exist on this host: {', '.join(sorted(set(missing)))}",
            remedy="run the baseline part of the deployment first; nothing was changed",
        )
    return owners
