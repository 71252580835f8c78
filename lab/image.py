"""The images lab hosts boot from: made by mmdebstrap, named by the digest of their definition."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.machine import program
from lab.namespace import RUN
from lab.plan import RELEASES, UBUNTU
from lab.podman import INIT, Podman, last_line

DEFINITION = Path(__file__).resolve().parent / "rootfs"
REPOSITORY = "localhost/mt5crs-lab"
BUILD_TIMEOUT_S = 900.0
UBUNTU_KEYS = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
_UNNEEDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Extra:
    """What hosts of a kind have beyond the others: Debian packages, and directories of this machine, each
    copied into one of the host's. `name` is part of the image's.
    """

    name: str
    packages: tuple[str, ...]
    copied: tuple[tuple[Path, str], ...]


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
    kept: Sequence[str] = (),
) -> list[str]:
    """Return mmdebstrap's arguments that write a root file system to `target`, a directory or `….tar`.

    kept: patterns of paths that stay, of those that are left out elsewhere.
    """
    argv = ["--quiet", f"--variant={variant}", f"--include={','.join(included)}"]
    argv += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"']
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNNEEDED]
    argv += [f"--dpkgopt=path-include={pattern}" for pattern in kept]
    argv += [f"--customize-hook={hook}" for hook in hooks]
    if debian in UBUNTU:
        argv.append("--components=main,universe")  # Prometheus is in the second
    argv += [(RELEASES | UBUNTU)[debian], str(target)]
    return [*argv, mirror] if mirror else argv


def build_argv(
    debian: str, definition: Path, target: Path, mirror: str | None, extra: Extra | None = None
) -> list[str]:
    """Return mmdebstrap's arguments that write the root file system of a lab host to `target` (a tar)."""
    included = packages((definition / "packages.apt").read_text())
    hooks = [
        str(definition / "customize"),
        f"upload {definition / 'lab-init'} {INIT}",
        f'chmod 0755 "$1{INIT}"',
    ]
    if extra is not None:
        included += extra.packages
        for source, into in extra.copied:
            hooks += [f'mkdir -p "$1{into}"', f"copy-in {source} {into}"]
    return root_argv(debian, included, hooks, target, mirror)


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


def _tag(debian: str, extra: Extra | None) -> str:
    return f"{REPOSITORY}:{extra.name if extra else ''}debian{debian}-"


def reference(debian: str, extra: Extra | None = None) -> str:
    """Return the image's name. It changes with every file it is made from: a stale image is never used."""
    digest = hashlib.sha256()
    recipe = build_argv(debian, DEFINITION, Path("root.tar"), None, extra)
    digest.update("\0".join(recipe).replace(str(DEFINITION), ".").encode())
    for file in sorted(DEFINITION.iterdir()):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return _tag(debian, extra) + digest.hexdigest()[:12]


def exists(podman: Podman, debian: str, extra: Extra | None = None) -> bool:
    """Tell whether podman has the image already."""
    return podman.run("image", "exists", reference(debian, extra), check=False).returncode == 0


def forget_older(podman: Podman, debian: str, extra: Extra | None = None) -> None:
    """Remove images of earlier definitions; podman keeps those that some lab still runs on."""
    listed = podman.run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    for name in listed:
        if name.startswith(_tag(debian, extra)) and name != reference(debian, extra):
            podman.run("rmi", name, check=False)


def build(podman: Podman, debian: str, mirror: str | None = None, extra: Extra | None = None) -> str:
    """Build and import the image of a Debian release unless it is there; return its name.

    Takes about 40 s and needs a Debian mirror. LabError if the mirror or the disk fails.
    """
    if debian in UBUNTU and mirror is None and not UBUNTU_KEYS.is_file():
        raise LabError(
            f"hosts of Ubuntu are built with its keys, and {UBUNTU_KEYS} is not there: "
            "install the package ubuntu-keyring, or boot the lab on a machine with Ubuntu"
        )
    name = reference(debian, extra)
    RUN.mkdir(mode=0o700, exist_ok=True)
    with (RUN / f"image-debian{debian}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if exists(podman, debian, extra):
            return name
        with tempfile.TemporaryDirectory(prefix="mt5crs-lab-image-") as scratch:
            archive = Path(scratch) / "root.tar"
            write_root(build_argv(debian, DEFINITION, archive, mirror, extra))
            # By way of this process: podman's namespace may not see where temporary files lie.
            podman.run("import", f"/proc/{os.getpid()}/root{archive}", name, timeout_s=300)
        forget_older(podman, debian, extra)
    return name
