"""The images lab hosts boot from: made by mmdebstrap, named by the digest of their definition."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.machine import program
from lab.namespace import RUN
from lab.plan import RELEASES
from lab.podman import INIT, Podman, last_line

DEFINITION = Path(__file__).resolve().parent / "rootfs"
REPOSITORY = "localhost/mt5crs-lab"
BUILD_TIMEOUT_S = 900.0
_UNNEEDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


def packages(text: str) -> list[str]:
    """Return the package names in a list with one per line and `#` comments."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def root_argv(
    debian: str,
    included: Sequence[str],
    hooks: Sequence[str],
    target: Path,
    mirror: str | None,
    variant: str = "minbase",
) -> list[str]:
    """Return mmdebstrap's arguments that write a root file system to `target`, a directory or `….tar`."""
    argv = ["--quiet", f"--variant={variant}", f"--include={','.join(included)}"]
    argv += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"']
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNNEEDED]
    argv += [f"--customize-hook={hook}" for hook in hooks]
    argv += [RELEASES[debian], str(target)]
    return [*argv, mirror] if mirror else argv


def build_argv(debian: str, definition: Path, target: Path, mirror: str | None) -> list[str]:
    """Return mmdebstrap's arguments that write the root file system of a lab host to `target` (a tar)."""
    hooks = [
        str(definition / "customize"),
        f"upload {definition / 'lab-init'} {INIT}",
        f'chmod 0755 "$1{INIT}"',
    ]
    return root_argv(debian, packages((definition / "packages.apt").read_text()), hooks, target, mirror)


def write_root(argv: Sequence[str]) -> None:
    """Run mmdebstrap. LabError if the mirror or the disk fails, or it takes too long."""
    try:
        done = subprocess.run(
            [program("mmdebstrap"), *argv],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(
            f"building a Debian root took over {BUILD_TIMEOUT_S:.0f} s: "
            "check that the Debian mirror answers, or name another with --mirror"
        ) from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr]
        raise LabError(
            f"mmdebstrap could not build a Debian root ({last_line(errors[0])}): check that the Debian "
            "mirror answers and the disk has space, or name another mirror with --mirror"
        )


def reference(debian: str) -> str:
    """Return the image's name. It changes with every file it is made from: a stale image is never used."""
    digest = hashlib.sha256()
    recipe = build_argv(debian, DEFINITION, Path("root.tar"), None)
    digest.update("\0".join(recipe).replace(str(DEFINITION), ".").encode())
    for file in sorted(DEFINITION.iterdir()):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return f"{REPOSITORY}:debian{debian}-{digest.hexdigest()[:12]}"


def exists(podman: Podman, debian: str) -> bool:
    """Tell whether podman has the image already."""
    return podman.run("image", "exists", reference(debian), check=False).returncode == 0


def forget_older(podman: Podman, debian: str) -> None:
    """Remove images of earlier definitions; podman keeps those that some lab still runs on."""
    listed = podman.run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    for name in listed:
        if name.startswith(f"{REPOSITORY}:debian{debian}-") and name != reference(debian):
            podman.run("rmi", name, check=False)


def build(podman: Podman, debian: str, mirror: str | None = None) -> str:
    """Build and import the image of a Debian release unless it is there; return its name.

    Takes about 40 s and needs a Debian mirror. LabError if the mirror or the disk fails.
    """
    name = reference(debian)
    RUN.mkdir(mode=0o700, exist_ok=True)
    with (RUN / f"image-debian{debian}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if exists(podman, debian):
            return name
        with tempfile.TemporaryDirectory(prefix="mt5crs-lab-image-") as scratch:
            archive = Path(scratch) / "root.tar"
            write_root(build_argv(debian, DEFINITION, archive, mirror))
            # By way of this process: podman's namespace may not see where temporary files lie.
            podman.run("import", f"/proc/{os.getpid()}/root{archive}", name, timeout_s=300)
        forget_older(podman, debian)
    return name
