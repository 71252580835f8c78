"""The wheels of a bundle: what uv.lock pins, downloaded by pip for every Python of the hosts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tomllib
from packaging.markers import Marker

from deploy.controller.programs import require

_CONSTANT_TIME = 315532800
"""1 January 1980, the earliest a zip can hold."""

PYTHONS = ("3.10", "3.11", "3.12", "3.13")

_MANYLINUX = ("2_34", "2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
"""glibc of the oldest host is 2.35 (Ubuntu 22.04)."""


@dataclass(frozen=True)
class Platform:
    """An operating system that hosts run."""

    name: str
    manifest_name: str
    """As :func:`mt5crs_release.bundles.bundle.this_platform` says on such a host."""
    extras: tuple[str, ...]
    pip_platforms: tuple[str, ...]
    markers: dict[str, str]
    pythons: tuple[str, ...] = PYTHONS

    def environment(self, python: str) -> dict[str, str]:
        """Return what markers are evaluated with for CPython ``python`` (such as ``3.11``)."""
        return {
            **self.markers,
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": "",
        }


LINUX = Platform(
    "linux",
    "linux-x86_64",
    (),
    tuple(f"manylinux_{version}_x86_64" for version in _MANYLINUX),
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
)
LINUX_ARM64 = Platform(
    "linux-arm64",
    "linux-aarch64",
    (),
    tuple(f"manylinux_{version}_aarch64" for version in _MANYLINUX if version not in ("2_12", "2_5")),
    {**LINUX.markers, "platform_machine": "aarch64"},
    ("3.13",),
)
"""For container images alone: the Python of Debian 13."""
WINDOWS = Platform(
    "windows",
    "win-x86_64",
    ("windows",),
    ("win_amd64",),
    {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
)
PLATFORMS = {platform.name: platform for platform in (LINUX, LINUX_ARM64, WINDOWS)}


_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?:\s*;\s*(?P<marker>.*?))?(?=\s+--hash|\s*$)")


class WheelError(Exception):
    """Wheels could not be provided; the message names cause and remedy."""


@dataclass(frozen=True)
class Requirement:
    """A pinned distribution: name, version, where it applies, and every hash the lock allows."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]

    def applies(self, platform: Platform, python: str) -> bool:
        """Tell whether it is needed on ``platform`` with CPython ``python`` (such as ``3.11``)."""
        if self.marker is None:
            return True
        return Marker(self.marker).evaluate(platform.environment(python))

    def line(self, hashes: Sequence[str], *, marker: bool = True) -> str:
        """Return it as a line of a requirements file with ``hashes``."""
        where = f" ; {self.marker}" if self.marker and marker else ""
        return f"{self.name}=={self.version}{where}" + "".join(
            f" --hash=sha256:{digest}" for digest in hashes
        )


def locked_requirements(root: Path, platform: Platform) -> list[Requirement]:
    """Return what uv.lock pins for the programs on hosts of ``platform``.

    :raises WheelError: the lock is out of date
    :raises MissingProgramError: uv is missing
    """
    options = "--locked --no-default-groups --no-emit-project --no-header --no-annotate"
    options += " --format requirements-txt" + "".join(f" --extra {extra}" for extra in platform.extras)
    text = run([require("uv"), "export", *options.split()], root, "Run `uv lock`, then build again.")
    return parse_requirements(text)


def parse_requirements(text: str) -> list[Requirement]:
    """Return the requirements in the text of a hashed requirements file."""
    requirements = []
    for line in text.replace("\\\n", " ").splitlines():
        match = _PIN.match(line)
        if match:
            hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            requirements.append(Requirement(match["name"], match["version"], match["marker"], hashes))
    return requirements


def locked_pip(root: Path) -> Requirement:
    """Return pip as uv.lock pins it: hosts have none, so its wheel travels along."""
    lock = tomllib.loads((root / "uv.lock").read_text())
    package = next(entry for entry in lock["package"] if entry["name"] == "pip")
    hashes = tuple(wheel["hash"].removeprefix("sha256:") for wheel in package["wheels"])
    return Requirement("pip", package["version"], None, hashes)


def collect(
    requirements: Sequence[Requirement], platform: Platform, pythons: Sequence[str], cache: Path
) -> dict[str, Path]:
    """Return every wheel needed on ``platform``, by file name; downloaded unless in ``cache``.

    :raises WheelError: a wheel does not exist for a platform, or a hash differs
    """
    question = [platform.name, *platform.pip_platforms, *pythons]
    question += [requirement.line(requirement.hashes) for requirement in requirements]
    directory = cache / f"{platform.name}-{hashlib.sha256(json.dumps(question).encode()).hexdigest()[:16]}"
    if not directory.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".tmp-") as temporary:
            downloads = [Path(temporary) / python for python in pythons]
            with ThreadPoolExecutor() as pool:
                list(pool.map(partial(_download, requirements, platform), pythons, downloads))
            wheels = Path(temporary) / "wheels"
            wheels.mkdir()
            for path in (path for download in downloads for path in download.iterdir()):
                path.replace(wheels / path.name)
            _keep(wheels, directory)
    return {path.name: path for path in sorted(directory.glob("*.whl"))}


def build_own_wheel(root: Path, cache: Path) -> Path:
    """Return our own wheel, built unless the same sources were built before.

    Its time stamps are constant: rebuilding the same code gives the same bytes and so the same release.

    :raises WheelError: the build failed
    :raises MissingProgramError: uv is missing
    """
    sources = [
        *(root / "src").rglob("*"),
        *(root / name for name in ("pyproject.toml", "README.md", "LICENSE")),
    ]
    return build_wheel(root, sources, cache, "own")


def build_wheel(root: Path, sources: Iterable[Path], cache: Path, kind: str) -> Path:
    """Return the wheel of the project in ``root``, built unless the same sources were built before.

    :param kind: begins the name in the cache
    :raises WheelError: the build failed
    :raises MissingProgramError: uv is missing
    """
    digest = hashlib.sha256()
    for path in sorted(sources):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    directory = cache / f"{kind}-{digest.hexdigest()[:16]}"
    if not directory.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".tmp-") as temporary:
            target = Path(temporary) / "wheel"
            command = [require("uv"), "build", "--quiet", "--wheel", "--out-dir", str(target), str(root)]
            run(
                command,
                root,
                "If it says that it cannot download: check the connection to the package index. Else mend "
                "pyproject.toml or the sources. Then build again.",
                SOURCE_DATE_EPOCH=str(_CONSTANT_TIME),
            )
            _keep(target, directory)
    return next(directory.glob("*.whl"))


def _keep(made: Path, directory: Path) -> None:
    """Give ``made`` its name in the cache; another build may have been quicker with the same."""
    try:
        made.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(requirements: Sequence[Requirement], platform: Platform, python: str, target: Path) -> None:
    wanted = [requirement for requirement in requirements if requirement.applies(platform, python)]
    target.mkdir()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{item.line(item.hashes, marker=False)}\n" for item in wanted))
        file.flush()
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += [
            "--only-binary=:all:",
            "--require-hashes",
            "--implementation=cp",
            f"--python-version={python}",
        ]
        command += [f"--platform={name}" for name in platform.pip_platforms]
        run(
            [*command, "--dest", str(target), "-r", file.name],
            target,
            f"Check the connection to the package index; all need a wheel for {platform.name}, {python}.",
        )


def run(command: Sequence[str], directory: Path, remedy: str, **environment: str) -> str:
    """Return what a command printed.

    :raises WheelError: it failed or took too long; ends with ``remedy``
    """
    shown = " ".join([Path(command[0]).name, *command[1:4]])
    try:
        answer = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WheelError(f"`{shown} …` took longer than 600 s. {remedy}") from None
    if answer.returncode != 0:
        said = "\n".join(answer.stderr.strip().splitlines()[-6:])
        raise WheelError(f"`{shown} …` failed:\n{said}\n{remedy}")
    return answer.stdout
