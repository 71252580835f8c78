"""Our part of an image: the wheels of a signed bundle, installed with their hashes by the image's Python."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.bundle.wheel_facts import WheelFacts, facts_of
from images.architecture import Architecture
from images.errors import ImageError
from images.root import compile_code, in_root
from images.services import SERVICES, STATE, USER
from images.steps import wheels
from images.steps.wheels import SITE
from mt5crs_release.bundles.bundle import CORE, Bundle

_BUNDLE = "build"
_TAG = "cp313"


def install(
    root: Path, bundle: Bundle, architecture: Architecture, builder: Path | None = None
) -> dict[str, WheelFacts]:
    """Install a bundle in a Debian root; return the wheels that it took, by file name.

    builder: a root of this machine's architecture that `root` is in, when that is another one's: its Python
    installs what the root's would.

    ImageError if the bundle is not for the image's Python, or pip refuses it. RefusedError if a file of it
    differs from its signed manifest.
    """
    bundle.check_kind(CORE)
    wanted = architecture.wheels.manifest_name
    if _TAG not in bundle.manifest["pythons"] or wanted not in bundle.manifest["platforms"]:
        raise ImageError(
            f"{bundle.path.name} is not for {wanted} with {_TAG}: name the bundle that `make bundle` made"
        )
    where = builder or root
    unpacked = where / _BUNDLE
    unpacked.mkdir()
    bundle.unpack(unpacked)
    try:
        (pip,) = unpacked.glob("wheels/pip-*.whl")
        below = f"/{root.relative_to(builder)}" if builder else ""
        in_root(
            where,
            wheels.installing(f"/{_BUNDLE}", pip.name, below),
            # As cross compilers say for which platform: pip takes its wheels.
            _PYTHON_HOST_PLATFORM=f"linux-{architecture.machine}",
        )
        taken = {
            path.name: facts_of(path) for path in unpacked.glob("wheels/*.whl") if _installed(root, path)
        }
    finally:
        shutil.rmtree(unpacked)
        for path in (where / "tmp").iterdir():
            shutil.rmtree(path)
    wheels.finish(root)
    compile_code(root, SITE, builder)
    return taken


def owner(name: str) -> int:
    """Return who owns a file of the image: the services own what they write, and nothing else."""
    written = [volume.lstrip("/") for service in SERVICES for volume in service.volumes]
    return USER if name in written or name.startswith(f"{STATE.lstrip('/')}/") else 0


def is_own(name: str) -> bool:
    """Tell whether a file belongs into our layer."""
    return any(name == own or name.startswith(f"{own}/") for own in wheels.OWN)


def _installed(root: Path, wheel: Path) -> bool:
    """Tell whether what is installed came from this file: a bundle holds one wheel for each Python."""
    name, version, *_, python, _abi, _platform = wheel.stem.split("-")
    described = root / SITE / f"{name}-{version}.dist-info/WHEEL"
    return described.is_file() and f"Tag: {python}-" in described.read_text()
